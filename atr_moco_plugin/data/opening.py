"""From recordings with captions and the files found for them to an open data set."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from atr_moco_plugin.data.audio import MIN_SECONDS, too_short
from atr_moco_plugin.data.captions import CaptionTable, Recording
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.dataset import AudioTextDataset, Counts
from atr_moco_plugin.data.decode import check_complete, opened
from atr_moco_plugin.data.files import describe
from atr_moco_plugin.errors import InputError, MissingFileError

_NAMED = 3
_FILES_A_JOB = 64


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What opening does about audio and clips that are not as they should be; the options that the
    data sets of files have in common.

    Attributes:
        strict: make missing and unreadable audio and clips without a caption an error; otherwise
            such clips are left out and counted.
        check_audio: read every file's header when opening, which finds broken files and the total
            duration; without, a broken file is met in training.
        cache: keep decoded audio in memory.
    """

    strict: bool = False
    check_audio: bool = True
    cache: bool = False


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
        ValueError: if a key is in two splits, or under ``strict`` if a file is not readable or a
            clip has no caption.
    """
    _check_disjoint(name, tables)
    _check_captions(name, tables, policy.strict)
    _check_found(name, tables, sources, place, policy.strict)

    splits: dict[str, ClipTable] = {}
    counts: dict[str, Counts] = {}
    broken: list[str] = []
    rates: Counter[int] = Counter()
    for split, table in tables.items():
        found = [path for path in sources[split] if path is not None]
        headers = read_headers(found) if policy.check_audio else None
        clips, total, unreadable = ClipTable(), 0.0, 0
        for item, path in zip(table.recordings.values(), sources[split], strict=True):
            if path is None:
                continue
            if headers is not None:
                header = next(headers)
                if header.problem:
                    unreadable += 1
                    broken.append(f"{path}: {header.problem}")
                    continue
                total += header.seconds
                rates[header.rate] += 1
            clips.append(Clip(item.key, item.captions, path))
        if clips:
            splits[split] = clips
        counts[split] = Counts(
            seconds=total if policy.check_audio else None,
            missing=len(sources[split]) - len(found),
            unreadable=unreadable,
            no_caption=len(table.bare),
            empty_captions=table.empty,
            repeated_rows=table.repeated,
        )
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


def read_headers(paths: Sequence[str]) -> Iterator[Header]:
    """Read the headers of audio files, several at a time, and see whether the files are complete.

    Args:
        paths: the files.

    Yields:
        What each of the files has, in order.
    """
    jobs = [paths[start : start + _FILES_A_JOB] for start in range(0, len(paths), _FILES_A_JOB)]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for headers in pool.map(lambda job: [_read_header(path) for path in job], jobs):
            yield from headers


def _read_header(path: str) -> Header:
    try:
        with opened(path) as file:
            check_complete(file, path)
            seconds = file.frames / file.samplerate
            if not too_short(file.frames, file.samplerate):
                return Header(seconds, file.samplerate, "")
            problem = f"lasts {seconds:.3f} s, less than {MIN_SECONDS} s"
    except (InputError, OSError) as error:
        problem = str(error).removeprefix(f"{path}: ").split("; ")[0]
    return Header(math.nan, 0, problem)


def _check_disjoint(name: str, tables: Mapping[str, CaptionTable]) -> None:
    for first, second in combinations(tables, 2):
        keys = tables[first].recordings.keys()
        both = [key for key in tables[second].recordings if key in keys]
        if both:
            raise InputError(
                f"{name}: {_many(len(both), 'clip')} in both {first!r} and {second!r}: "
                f"{_few([repr(key) for key in both])}; a recording may be in one split only, take "
                "it out of one of the two captions files"
            )


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
    if not absent or not (strict or len(absent) == total):
        return
    names = _few([repr(text) for text in absent[0].names], 6)
    if len(absent) == total:
        which, what_to_do = f"none of the {total:,} clips has its audio", "set audio to its folder"
    else:
        which = f"{len(absent):,} of {total:,} clips have no audio"
        what_to_do = "put it there or set strict: false"
    raise MissingFileError(
        f"{os.fspath(place)}: {name}: {which} there: looked for {absent[0].key!r} under the name "
        f"{names} (.wav, .flac, ...), {describe(place)}; {what_to_do}"
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
