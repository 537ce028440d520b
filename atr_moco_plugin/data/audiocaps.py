"""AudioCaps in the layouts people have it in.

C. D. Kim, B. Kim, H. Lee, G. Kim, *AudioCaps: Generating Captions for Audios in The Wild*, NAACL
2019. A clip is one segment of a YouTube video; the captions files are public, the audio is what
could still be downloaded, so that some of it is always missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.captions import CaptionTable
from atr_moco_plugin.data.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.files import stem_of
from atr_moco_plugin.data.layouts import (
    CaptionLayout,
    FolderConfig,
    absolute,
    filled,
    find_exactly,
    need_root,
    read_captions,
    read_folder,
)
from atr_moco_plugin.data.opening import assemble
from atr_moco_plugin.data.tables import read_rows
from atr_moco_plugin.errors import InputError

_SECONDS = 10
_VIDEO = re.compile(r"Y?([\w-]{11})(?:_\d+(?:\.\d+)?){0,2}", re.ASCII)


@dataclass(frozen=True)
class AudioCapsConfig(FolderConfig):
    """How to open AudioCaps."""


def open_audiocaps(config: AudioCapsConfig) -> AudioTextDataset:
    """Open AudioCaps with those of the splits ``train``, ``valid`` and ``test`` that are there.

    A clip's key is its YouTube id, whatever the layout. Its audio is the file named ``Y<id>``,
    ``<id>``, ``<id>_<start>`` (in seconds, with or without decimals, or milliseconds, the end may
    follow) or ``<audiocap_id>``, with any suffix that soundfile reads: first in a folder named
    after the split (``train/``, ``waveforms/train/``), then in any other. Of one file a caption
    row the first that is there is taken.

    Raises:
        FileNotFoundError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if a file cannot be read, a split has two captions files, or a YouTube id is in
            two splits.
    """
    root = need_root(config.root, "AudioCaps")
    tables, files = read_folder(_LAYOUT, root, config.captions, config.audio)
    sources = absolute(find_exactly(tables, files, elsewhere=True), files)
    return assemble("audiocaps", tables, sources, files.folder, config)


def read_audiocaps_captions(place: str | os.PathLike[str]) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_audiocaps` reads them.

    Args:
        place: a folder with captions files at any depth, or one file.

    Returns:
        Split to its recordings, keyed by YouTube id.

    Raises:
        FileNotFoundError, ValueError: see :func:`open_audiocaps`.
    """
    return read_captions(_LAYOUT, Path(place))


def _read_table(path: Path, split: str) -> CaptionTable:
    table = CaptionTable()
    starts: dict[str, float | None] = {}
    for number, row in enumerate(read_rows(path), start=1):
        if "youtube_id" in row:
            key = filled(row, "youtube_id", path, number).strip()
            start = _start(row)
            if starts.setdefault(key, start) != start:
                raise InputError(
                    f"{path}: video {key!r} has segments from {starts[key]} s and from {start} s; "
                    "AudioCaps has one of each video, open others as a manifest"
                )
            names = _names(key, start, str(row.get("audiocap_id", "")))
        else:
            name = filled(row, audio_column(tuple(row)), path, number)
            stem = stem_of(name)
            video = _VIDEO.fullmatch(stem)
            key = video[1] if video else stem
            names = (name, f"Y{key}", key)
        table.add(key, row_captions(row), names, row)
    return table


def _start(row: Mapping[str, object]) -> float | None:
    try:
        return float(str(row["start_time"]))
    except (KeyError, ValueError):
        return None


def _names(video: str, start: float | None, row_id: str) -> tuple[str, ...]:
    """Stems the audio of a row may have, best first."""
    stems = [f"Y{video}", video]
    if start is not None:
        end = start + _SECONDS
        for form in ("{:.0f}", "{:.1f}", "{:.3f}"):
            begin = form.format(start)
            stems += [f"{video}_{begin}", f"{video}_{begin}_{form.format(end)}"]
        stems += [f"{video}_{1000 * start:.0f}", f"{video}_{1000 * start:.0f}_{1000 * end:.0f}"]
        stems += [f"Y{stem}" for stem in stems[2:]]
    return (*stems, row_id) if row_id else tuple(stems)


def _accepts(columns: tuple[str, ...]) -> bool:
    return bool(caption_columns(columns)) and (
        "youtube_id" in columns or audio_column(columns) is not None
    )


_LAYOUT = CaptionLayout(
    "AudioCaps",
    "the columns youtube_id and caption, or file_name and caption or caption_1, caption_2, ...",
    _accepts,
    _read_table,
)
