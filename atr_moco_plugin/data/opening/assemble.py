"""From recordings with captions and the files found for them to an open data set."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import NamedTuple

from atr_moco_plugin.config import Config
from atr_moco_plugin.data.audio.decode import Decoder, check_decoder, read_header
from atr_moco_plugin.data.audio.read import MIN_SECONDS, too_short
from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.dataset import AudioTextDataset, Counts
from atr_moco_plugin.data.opening.audio_files import describe
from atr_moco_plugin.data.opening.captions import CaptionTable, Recording
from atr_moco_plugin.data.opening.joining import Found, check_shared, join_recordings
from atr_moco_plugin.errors import InputError, MissingFileError

_NAMED = 3
TRIED = (
    "names were tried as they are, with / for \\, ~ and $NAME replaced, file: URLs as paths, without "
    "blanks around them, in either form of accents, and with the suffix in another case or another "
    "one of audio where one file alone has it"
)
_FILES_A_JOB = 64


@dataclass(frozen=True, kw_only=True)
class Policy(Config):
    """What opening does about audio and clips that are not as they should be; the options that the
    data sets of files have in common.

    Attributes:
        strict: make missing and unreadable audio and clips without a caption an error; otherwise
            such clips are left out and counted.
        check_audio: read every file's header when opening, which finds broken files and the total
            duration; without, a broken file is met in training.
        allow_shared_audio: let a recording be in two splits, and count such clips; otherwise it is
            an error, since the figures on one split would then be of what the other has trained.
        decoder: what reads the headers; the one that the files are then read with. In a recipe it
            follows ``dataset.decoder``.
        cache: keep decoded audio in memory.
    """

    strict: bool = False
    check_audio: bool = True
    allow_shared_audio: bool = False
    decoder: Decoder = "soundfile"
    cache: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decoder(self.decoder)


def assemble(
    name: str,
    tables: Mapping[str, CaptionTable],
    sources: Mapping[str, Sequence[str | None]],
    place: str | os.PathLike[str],
    policy: Policy,
) -> AudioTextDataset:
    """Make a data set of the recordings whose audio is there and readable.

    What is left out is counted by split; broken files are named in one warning, the first few of
    them. Splits without a clip are left out.

    Args:
        name: of the data set.
        tables: split to its recordings.
        sources: split to one path a recording, in the order of the table, ``None`` where no file
            was found.
        place: where audio was looked for, for messages.
        policy: what is an error, and whether headers are read.

    Raises:
        FileNotFoundError: if no audio was found, or under ``strict`` if some is missing.
        ValueError: if a recording is in two splits, a ``clip_id`` contradicts the files, a segment
            is not in its file, or under ``strict`` if a file is not readable or a clip has no
            caption.
    """
    _check_disjoint(name, tables, policy.allow_shared_audio)
    _check_captions(name, tables, policy.strict)
    _check_found(name, tables, sources, place, policy.strict)

    found = join_recordings(tables, sources)
    headers = Headers(found, policy.decoder) if policy.check_audio else None
    usable: list[Found] = []
    totals: dict[str, float] = dict.fromkeys(tables, 0.0)
    unreadable: Counter[str] = Counter()
    broken: list[str] = []
    rates: Counter[int] = Counter()
    for clip in found:
        if headers is not None:
            header = headers.of(clip)
            if header.problem:
                unreadable[clip.split] += 1
                broken.append(f"{clip.source}: {header.problem}")
                continue
            totals[clip.split] += header.seconds
            rates[header.rate] += 1
        usable.append(clip)
    shared, same = check_shared(
        name, usable, allow=policy.allow_shared_audio, contents=policy.check_audio
    )

    splits: dict[str, ClipTable] = {}
    earlier: set[str] = set()
    for split, clips in groupby(usable, key=lambda clip: clip.split):
        splits[split] = ClipTable(_clips(split, clips, earlier))
        if policy.allow_shared_audio:
            earlier.update(clip.key for clip in splits[split])
    counts = {
        split: Counts(
            seconds=totals[split] if policy.check_audio else None,
            missing=sources[split].count(None),
            unreadable=unreadable[split],
            no_caption=len(table.bare),
            empty_captions=table.empty,
            repeated_rows=table.repeated,
            shared_audio=shared[split],
            same_audio=same[split],
        )
        for split, table in tables.items()
    }
    if broken:
        _report_broken(name, broken, error=policy.strict or not splits)
    return AudioTextDataset(
        name,
        splits,
        seconds=sum(c.seconds or 0.0 for c in counts.values()) if policy.check_audio else None,
        missing=sum(c.missing for c in counts.values()),
        counts=counts,
        cache=policy.cache,
        file_rates=rates,
    )


class Header(NamedTuple):
    """What the header of an audio file says.

    Attributes:
        seconds: its duration, ``nan`` where there is a problem.
        rate: its sampling rate in Hz, 0 where there is a problem.
        problem: what keeps the file from being decoded, or empty.
    """

    seconds: float
    rate: int
    problem: str


def _clips(split: str, found: Iterable[Found], earlier: Set[str]) -> Iterator[Clip]:
    for clip in found:
        item = clip.item
        # A key is one clip's; a recording that may be in two splits has two.
        key = f"{split}/{item.key}" if item.key in earlier else item.key
        yield Clip(key, item.captions, clip.source)


class Headers:
    """Headers of the files of clips, each read once, in the clips' order."""

    def __init__(self, found: Sequence[Found], decoder: Decoder) -> None:
        numbers = Counter(clip.path for clip in found if isinstance(clip.source, Segment))
        self._several = {path for path, number in numbers.items() if number > 1}
        self._known: dict[str, Header] = {}
        self._next = read_headers(list(self._distinct(found)), decoder)

    def _distinct(self, found: Sequence[Found]) -> Iterator[str]:
        seen: set[str] = set()
        for clip in found:
            if clip.path not in self._several:
                yield clip.path
            elif clip.path not in seen:
                seen.add(clip.path)
                yield clip.path

    def of(self, clip: Found) -> Header:
        """The header of the next clip; of a segment, the part's duration. Sets ``clip.part``.

        Raises:
            ValueError: if a segment is not in its file.
        """
        header = self._known.get(clip.path) or next(self._next)
        if clip.path in self._several:
            self._known[clip.path] = header
        if header.problem:
            return header
        total = round(header.seconds * header.rate)
        if not isinstance(clip.source, Segment):
            clip.part = (0, total)
            return header
        try:
            first, last = clip.source.frames(total, header.rate)
        except InputError as error:
            raise InputError(f"{clip.item.where}: {error}") from None
        clip.part = (first, last)
        seconds = (last - first) / header.rate
        if too_short(last - first, header.rate):
            return Header(math.nan, 0, f"lasts {seconds:.3f} s, less than {MIN_SECONDS} s")
        return Header(seconds, header.rate, "")


def read_headers(paths: Sequence[str], decoder: Decoder = "soundfile") -> Iterator[Header]:
    """Read the headers of audio files, several at a time, and see whether the files are complete.

    Args:
        paths: the files.
        decoder: what reads them.

    Yields:
        What each of the files has, in order.
    """
    jobs = [paths[start : start + _FILES_A_JOB] for start in range(0, len(paths), _FILES_A_JOB)]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for headers in pool.map(lambda job: [_read_header(path, decoder) for path in job], jobs):
            yield from headers


def _read_header(path: str, decoder: Decoder) -> Header:
    try:
        frames, rate = read_header(path, decoder)
        if not too_short(frames, rate):
            return Header(frames / rate, rate, "")
        problem = f"lasts {frames / rate:.3f} s, less than {MIN_SECONDS} s"
    except (InputError, OSError) as error:
        problem = str(error).removeprefix(f"{path}: ").split("; ")[0]
    return Header(math.nan, 0, problem)


def _check_disjoint(name: str, tables: Mapping[str, CaptionTable], allow: bool) -> None:
    for first, second in combinations(tables, 2):
        known = {key: item for item in tables[first].recordings.values() for key in _keys(item)}
        both = [
            (known[key], item)
            for item in tables[second].recordings.values()
            for key in _keys(item)
            if key in known and not (allow and not item.given)
        ]
        if both:
            one, two = both[0]
            lift = "" if two.given else ", or set allow_shared_audio: true"
            raise InputError(
                f"{name}: {_many(len(both), 'clip')} in both {first!r} and {second!r}: "
                f"{_few([repr(item.key) for _, item in both])}; a recording may be in one split "
                f"only, take it out of one of the two ({one.where} and {two.where}){lift}"
            )


def _keys(item: Recording) -> tuple[str, ...]:
    """The key, and the video where others of its clips have keys of their own."""
    return item.key, *item.shared_names[:1]


def _check_captions(name: str, tables: Mapping[str, CaptionTable], strict: bool) -> None:
    for split, table in tables.items():
        if table.bare and (strict or not any(t.recordings for t in tables.values())):
            raise InputError(
                f"{name}: {_many(len(table.bare), 'clip')} of split {split!r} without a caption: "
                f"{_few([repr(key) for key in table.bare])}; give each one, or leave them out"
                + (" with strict: false" if strict else "")
            )


def _check_found(
    name: str,
    tables: Mapping[str, CaptionTable],
    sources: Mapping[str, Sequence[str | None]],
    place: str | os.PathLike[str],
    strict: bool,
) -> None:
    absent: list[Recording] = []
    total = 0
    for split, table in tables.items():
        total += len(table.recordings)
        pairs = zip(table.recordings.values(), sources[split], strict=True)
        absent.extend(item for item, path in pairs if path is None)
    if not absent:
        return
    if not strict and len(absent) < total:
        warnings.warn(
            f"{name}: {_many(len(absent), 'clip')} without audio in {os.fspath(place)}, of {total:,}: "
            f"{_few([repr(item.names[0] if item.names else item.key) for item in absent], 5)}; "
            f"{TRIED}",
            stacklevel=4,
        )
        return
    names = _few([repr(text) for text in absent[0].names], 6)
    if len(absent) == total:
        which, what_to_do = f"none of the {total:,} clips has its audio", "set audio to its folder"
    else:
        which = f"{len(absent):,} of {total:,} clips have no audio"
        what_to_do = "put it there or set strict: false"
    raise MissingFileError(
        f"{os.fspath(place)}: {name}: {which} there: looked for {absent[0].key!r} under the name "
        f"{names} (.wav, .flac, ...), {describe(place)}; {TRIED}; {what_to_do}"
    )


def _report_broken(name: str, broken: list[str], *, error: bool) -> None:
    message = (
        f"{name}: {_many(len(broken), 'audio file')} not usable: {_few(broken)}; fetch "
        f"{'it' if len(broken) == 1 else 'them'} again"
    )
    if error:
        raise InputError(message)
    warnings.warn(f"{message}, left out for now", stacklevel=4)


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun} is" if number == 1 else f"{number:,} {noun}s are"


def _few(items: Sequence[str], most: int = _NAMED) -> str:
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more:,} more" if more > 0 else "")
