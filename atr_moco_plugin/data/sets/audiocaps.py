"""AudioCaps in the layouts people have it in.

C. D. Kim, B. Kim, H. Lee, G. Kim, *AudioCaps: Generating Captions for Audios in The Wild*, NAACL
2019. A clip is one segment of a YouTube video; the captions files are public, the audio is what
could still be downloaded, so that some of it is always missing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import assemble
from atr_moco_plugin.data.opening.audio_files import stem_of
from atr_moco_plugin.data.opening.captions import CaptionTable, Recording
from atr_moco_plugin.data.opening.folders import (
    CaptionLayout,
    FolderConfig,
    absolute,
    filled,
    find_exactly,
    need_root,
    read_captions,
    read_folder,
)
from atr_moco_plugin.data.sets import youtube
from atr_moco_plugin.data.tables.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.data.tables.segments import plain_number
from atr_moco_plugin.errors import InputError

_VIDEO = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.ASCII)


@dataclass(frozen=True)
class AudioCapsConfig(FolderConfig):
    """How to open AudioCaps."""


def open_audiocaps(config: AudioCapsConfig) -> AudioTextDataset:
    """Open AudioCaps with those of the splits ``train``, ``valid`` and ``test`` that are there.

    A clip is a (``youtube_id``, ``start_time``), and its key its YouTube id, whatever the layout;
    of several starts in one video ``<id>_<start>``. Its audio is the file named ``Y<id>`` or
    ``<id>`` (where the video has one start), ``<id>_<start>`` (in seconds, with or without
    decimals, or milliseconds, the end may follow) or ``<audiocap_id>``, with any suffix that
    soundfile reads: first in a folder named after the split (``train/``, ``waveforms/train/``),
    then in any other. Of one file a caption row the first that is there is taken. Captions files
    without ``youtube_id`` name the audio by its path: equal names in two folders are two clips.

    Raises:
        FileNotFoundError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if a file cannot be read, a split has two captions files, a name fits files in
            two folders, or a recording is in two splits.
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
    starts: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(read_rows(path), start=1):
        captions, place = tuple(row_captions(row)), os.fspath(path)
        column = audio_column(tuple(row))
        if "youtube_id" in row:
            video = filled(row, "youtube_id", path, number).strip()
            start = youtube.start_of(row)
            known, first = starts.setdefault(video, (start, number))
            if bool(known) != bool(start):
                raise InputError(
                    f"{path}: rows {first} and {number} are of video {video!r}, and only one has a "
                    "start_time; give it in both"
                )
            names = youtube.names_of(video, start, str(row.get("audiocap_id", "")))
            item = Recording(video, captions, names, place=place, row=number)
            item.identity, item.shared_names = youtube.clip_name(video, start), names[:2]
            item.starts = f"youtube_id {video}" + (start and f", start_time {start}")
            named = str(row[column]) if column is not None else ""
            item.names, item.copies = (named, *names) if named else names, not named
        else:
            name = filled(row, column, path, number)
            item = _named(name, captions)
            item.place, item.row = place, number
        table.add(item, row)
    return table


def _named(name: str, captions: tuple[str, ...]) -> Recording:
    """A recording by the name of its file, with the folders in it."""
    folder, base = os.path.split(os.path.normpath(name.replace("\\", "/")))
    stem = stem_of(base)
    video = _VIDEO.fullmatch(stem)
    key, start = (video[1], video[2] or "") if video else (stem, "")
    names = (name, os.path.join(folder, f"Y{key}"), os.path.join(folder, key))
    item = Recording(key, captions, names, shared_names=names[1:])
    name = youtube.clip_name(key, plain_number(start)) if video else base
    item.identity = os.path.join(folder, name)
    return item


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
