"""Clotho in the layouts that people have it in.

K. Drossos, S. Lipping, T. Virtanen, *Clotho: an Audio Captioning Dataset*, ICASSP 2020. File names
are titles from Freesound, with commas, brackets and HTML entities, which download tools change.
Four names are in two splits and stand for different recordings.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.audio_files import AudioFiles
from atr_moco_plugin.data.opening.caption_folder import (
    CaptionFolder,
    CaptionFolderConfig,
    find_by_name,
    folder_names,
    open_caption_folder,
    read_captions,
    required_value,
)
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.data.opening.renamed_files import match_renamed
from atr_moco_plugin.data.tables.columns import Row, audio_column, caption_columns, row_captions
from atr_moco_plugin.data.tables.file_names import stem_of
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.data.tables.segments import fragment, place_note, segment_of


@dataclass(frozen=True)
class ClothoConfig(CaptionFolderConfig):
    """How to open Clotho."""


def open_clotho(config: ClothoConfig) -> AudioTextDataset:
    """Open Clotho with the splits ``train``, ``valid`` and ``test`` that are there.

    ``development`` is ``train``, ``validation`` is ``valid``, ``evaluation`` is ``test``. A clip's
    key is ``<split>/<file name without suffix>``, with HTML entities resolved; where two clips have
    the same, their folders and suffixes are in it too. Audio is taken by its exact name from a
    folder of the split or of no split, else by a name that
    :func:`~.renamed_files.match_renamed` pairs without ambiguity. A file that two splits may mean
    belongs to neither.

    Raises:
        MissingFileError, InputError: see :func:`~.caption_folder.open_caption_folder`.
    """
    return open_caption_folder(_LAYOUT, config)


def read_clotho_captions(place: str | os.PathLike[str]) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_clotho` reads them.

    Args:
        place: a folder with captions files at any depth, or one file.

    Returns:
        Split to its recordings.

    Raises:
        MissingFileError, InputError: see :func:`open_clotho`.
    """
    return read_captions(_LAYOUT, Path(place))


def _read(file: Path, split: str) -> Iterator[tuple[Captioned, Row]]:
    for number, row in enumerate(read_rows(file), start=1):
        name = required_value(row, audio_column(tuple(row)), file, number)
        key = f"{split}/{html.unescape(stem_of(name))}"
        item = Captioned(key, tuple(row_captions(row)), (name,), os.fspath(file), number)
        item.segment = segment_of(row, item.where)
        item.place_note = "" if item.segment else place_note(row)
        # With its suffix: rain.wav and rain.flac may be two recordings.
        path = html.unescape(os.path.normpath(name.replace("\\", "/")))
        item.identity = f"{split}/{path}{fragment(item.segment)}"
        yield item, row


def _find_audio(tables: Mapping[str, CaptionTable], audio: AudioFiles) -> None:
    find_by_name(tables, audio, other_splits=False)
    items = [item for table in tables.values() for item in table.recordings.values()]
    taken = {item.path for item in items}
    folders = folder_names(tables, audio)
    for split, table in tables.items():
        missing = [item for item in table.recordings.values() if item.path is None]
        free = [path for path in audio.of_split(split) if path not in taken]
        pairs = match_renamed([item.names[0] for item in missing], free)
        for item in missing:
            path = pairs.get(item.names[0])
            item.path = path if path and folders.may_be(item.names[0], path) else None
    splits_of = Counter(
        path for table in tables.values() for path in {i.path for i in table.recordings.values()}
    )
    for item in items:
        if splits_of[item.path] > 1:
            item.path = None


def _accepts(columns: tuple[str, ...]) -> bool:
    return bool(caption_columns(columns)) and audio_column(columns) is not None


_LAYOUT = CaptionFolder(
    "Clotho", "the columns file_name and caption_1, caption_2, ...", _accepts, _read, _find_audio
)
