"""AudioCaps in the layouts that people have it in.

C. D. Kim, B. Kim, H. Lee, G. Kim, *AudioCaps: Generating Captions for Audios in The Wild*, NAACL
2019. A clip is one segment of a YouTube video. The captions files are public; the audio is what
could still be downloaded, so that some of it is always missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.caption_folder import (
    CaptionFolder,
    CaptionFolderConfig,
    find_by_name,
    open_caption_folder,
    read_captions,
    required_value,
)
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.data.sets import youtube
from atr_moco_plugin.data.tables.column_names import VIDEO
from atr_moco_plugin.data.tables.columns import (
    Row,
    audio_column,
    caption_columns,
    cell_as_is,
    cell_text,
    row_captions,
)
from atr_moco_plugin.data.tables.file_names import stem_of
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.data.tables.segments import plain_number
from atr_moco_plugin.errors import InputError

_VIDEO_FILE = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.ASCII)


@dataclass(frozen=True)
class AudioCapsConfig(CaptionFolderConfig):
    """How to open AudioCaps."""


def open_audiocaps(config: AudioCapsConfig) -> AudioTextDataset:
    """Open AudioCaps with the splits ``train``, ``valid`` and ``test`` that are there.

    A clip is a (``youtube_id``, ``start_time``). Its key is its YouTube id in every layout, and
    ``<id>_<start>`` where one video has several starts. Its audio is the file named ``Y<id>`` or
    ``<id>`` (where the video has one start), ``<id>_<start>`` (in seconds, with or without
    decimals, or milliseconds; the end may follow) or ``<audiocap_id>``, with any suffix that
    soundfile reads: first in a folder named after the split (``train/``, ``waveforms/train/``),
    then in any other. Where there is a file for each caption row, the first one that is there is
    taken. Captions files without ``youtube_id`` name the audio by its path: equal names in two
    folders are two clips.

    Raises:
        MissingFileError, InputError: see :func:`~.caption_folder.open_caption_folder`.
    """
    return open_caption_folder(_LAYOUT, config)


def read_audiocaps_captions(place: str | os.PathLike[str]) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_audiocaps` reads them.

    Args:
        place: a folder with captions files at any depth, or one file.

    Returns:
        Split to its recordings, keyed by YouTube id.

    Raises:
        MissingFileError, InputError: see :func:`open_audiocaps`.
    """
    return read_captions(_LAYOUT, Path(place))


def _read(file: Path, split: str) -> Iterator[tuple[Captioned, Row]]:
    starts: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(read_rows(file), start=1):
        column = audio_column(tuple(row))
        if VIDEO in row:
            video = required_value(row, VIDEO, file, number).strip()
            start = youtube.start_of(row)
            known, first = starts.setdefault(video, (start, number))
            if bool(known) != bool(start):
                raise InputError(
                    f"{file}: rows {first} and {number} are of video {video!r}, and only one has a "
                    "start_time; give it in both"
                )
            named = cell_as_is(row[column]) if column is not None else ""
            item = _of_video(video, start, cell_text(row.get("audiocap_id")), named)
        else:
            item = _of_file(required_value(row, column, file, number))
        item.captions, item.file, item.row = tuple(row_captions(row)), os.fspath(file), number
        yield item, row


def _of_video(video: str, start: str, row_id: str, file_name: str) -> Captioned:
    """A recording by its place in a video, and by the name of its file where the row has one."""
    names = youtube.names_of(video, start, row_id)
    return Captioned(
        video,
        (),
        (file_name, *names) if file_name else names,
        identity=youtube.clip_name(video, start),
        shared_names=names[:2],
        copies=not file_name,
        place_note=f"youtube_id {video}" + (start and f", start_time {start}"),
    )


def _of_file(name: str) -> Captioned:
    """A recording by the name of its file, with the folders in it."""
    folder, base = os.path.split(os.path.normpath(name.replace("\\", "/")))
    video = _VIDEO_FILE.fullmatch(stem_of(base))
    key = video[1] if video else stem_of(base)
    identity = youtube.clip_name(key, plain_number(video[2] or "")) if video else base
    stems = (os.path.join(folder, f"Y{key}"), os.path.join(folder, key))
    return Captioned(
        key, (), (name, *stems), identity=os.path.join(folder, identity), shared_names=stems
    )


def _accepts(columns: tuple[str, ...]) -> bool:
    return bool(caption_columns(columns)) and (
        VIDEO in columns or audio_column(columns) is not None
    )


_LAYOUT = CaptionFolder(
    "AudioCaps",
    "the columns youtube_id and caption, or file_name and caption or caption_1, caption_2, ...",
    _accepts,
    _read,
    partial(find_by_name, other_splits=True),
)
