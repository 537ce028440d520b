"""From recordings with captions and the files found for them to an open data set."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from atr_moco_plugin.config import Config
from atr_moco_plugin.data.audio.decode import Decoder, check_decoder
from atr_moco_plugin.data.audio.source import FileSource
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.captions import CaptionTable
from atr_moco_plugin.data.opening.checks import (
    check_audio_found,
    check_captions,
    check_disjoint,
    number_of,
)
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.opening.headers import clip_headers
from atr_moco_plugin.data.opening.joining import LocatedRecording, check_shared, join_recordings
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.errors import InputError, listed


@dataclass(frozen=True, kw_only=True)
class OpeningConfig(Config):
    """Options that all data sets of files have in common: what happens to audio and clips that are
    not as they should be.

    Attributes:
        strict: make missing and unreadable audio and clips without a caption an error; otherwise
            such clips are left out and counted.
        check_audio: read every file's header when opening, which finds broken files and the total
            duration. Without it, training meets the broken files.
        allow_shared_audio: let a recording be in two splits, and count such clips. Otherwise it is
            an error, since the model would be evaluated on clips that it was trained on.
        exclude: a text file with the keys of clips that are left out, one a line; nothing that is
            refused or warned of counts them.
        decoder: what reads the headers, and later the files. In a recipe it follows
            ``dataset.decoder``.
        cache: keep decoded audio in memory.
    """

    strict: bool = False
    check_audio: bool = True
    allow_shared_audio: bool = False
    exclude: Path | None = None
    decoder: Decoder = "soundfile"
    cache: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decoder(self.decoder)


def assemble(
    name: str,
    tables: Mapping[str, CaptionTable],
    place: str | os.PathLike[str],
    config: OpeningConfig,
) -> AudioTextDataset:
    """Make a data set of the recordings whose audio is there and readable.

    Clips that are left out are counted by split; one warning names the first few broken files.
    Splits without a clip are left out.

    Args:
        name: of the data set.
        tables: split to its recordings, each with the ``path`` that was found for it.
        place: where audio was looked for, for messages.
        config: what is an error, and whether headers are read.

    Raises:
        MissingFileError: if no audio was found, or under ``strict`` if some is missing.
        InputError: if a recording is in two splits, a ``clip_id`` contradicts the files, a segment
            is not in its file, or under ``strict`` if a file is not readable or a clip has no
            caption.
    """
    exclusion = Exclusion(config.exclude)
    tables = exclusion.from_tables(name, tables)
    check_disjoint(name, tables, allow=config.allow_shared_audio)
    exclusion.rename()
    check_captions(name, tables, strict=config.strict)
    check_audio_found(name, tables, place, strict=config.strict)

    usable = join_recordings(tables)
    if config.allow_shared_audio:
        _name_apart(usable)
    seconds: dict[str, float] = dict.fromkeys(tables, 0.0)
    unreadable: Counter[str] = Counter()
    broken: list[str] = []
    lost: list[FileSource] = []
    rates: Counter[int] = Counter()
    if config.check_audio:
        found, usable = usable, []
        for clip, header in zip(found, clip_headers(found, config.decoder), strict=True):
            if header.problem:
                unreadable[clip.split] += 1
                broken.append(f"{clip.source}: {header.problem}")
                lost.append(clip.source)
            else:
                usable.append(clip)
                clip.seconds = header.seconds
                seconds[clip.split] += header.seconds
                rates[header.rate] += 1
    shared, same = check_shared(
        name, usable, allow=config.allow_shared_audio, contents=config.check_audio
    )

    splits: dict[str, ClipTable] = {}
    for split, clips in groupby(usable, key=lambda clip: clip.split):
        splits[split] = ClipTable(_clips(clips))
    counts = {
        split: Counts(
            seconds=seconds[split] if config.check_audio else None,
            missing=sum(item.path is None for item in table.recordings.values()),
            unreadable=unreadable[split],
            no_caption=len(table.without_caption),
            empty_captions=table.empty_captions,
            repeated_rows=table.repeated_rows,
            shared_audio=shared[split],
            same_audio=same[split],
            excluded=exclusion.numbers[split],
        )
        for split, table in tables.items()
    }
    if broken:
        _report_broken(name, broken, error=config.strict or not splits)
    data = AudioTextDataset(
        name,
        splits,
        counts=counts,
        cache=config.cache,
        file_rates=rates,
    )
    data.unreadable = tuple(lost)
    return data


def _name_apart(found: Iterable[LocatedRecording]) -> None:
    """Give a recording another key where an earlier split has it: a key belongs to one clip, and a
    recording that may be in two splits has two."""
    earlier: set[str] = set()
    for split, clips in groupby(found, key=lambda clip: clip.split):
        own: set[str] = set()
        for clip in clips:
            item = clip.recording
            if item.key in earlier:
                item.key = f"{split}/{item.key}"
            own.add(item.key)
        earlier |= own


def _clips(found: Iterable[LocatedRecording]) -> Iterator[Clip]:
    for clip in found:
        recording = clip.recording
        yield Clip(recording.key, recording.captions, clip.source, seconds=clip.seconds)


def _report_broken(name: str, broken: list[str], *, error: bool) -> None:
    number, them = number_of(broken, "audio file"), "it" if len(broken) == 1 else "them"
    if error:
        raise InputError(f"{name}: {number} not usable: {listed(broken)}; replace {them}")
    warnings.warn(
        f"{name}: {number} left out: {listed(broken)}; replace {them} to train on {them}",
        stacklevel=4,
    )
