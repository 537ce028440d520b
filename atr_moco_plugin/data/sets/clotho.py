"""Clotho in the layouts people have it in.

K. Drossos, S. Lipping, T. Virtanen, *Clotho: an Audio Captioning Dataset*, ICASSP 2020. File names
are titles from Freesound, with commas, brackets and HTML entities, which download tools change;
four names are in two splits and stand for different recordings.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import assemble
from atr_moco_plugin.data.opening.audio_files import AudioFiles, match_renamed, stem_of
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
from atr_moco_plugin.data.tables.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.data.tables.segments import fragment, segment_of, starts_of


@dataclass(frozen=True)
class ClothoConfig(FolderConfig):
    """How to open Clotho."""


def open_clotho(config: ClothoConfig) -> AudioTextDataset:
    """Open Clotho with those of the splits ``train``, ``valid`` and ``test`` that are there.

    ``development`` is ``train``, ``validation`` is ``valid``, ``evaluation`` is ``test``. A clip's
    key is ``<split>/<file name without suffix>``, HTML entities resolved, with its folders
    and its suffix where two clips have the same. Audio is taken by its
    exact name from a folder of the split or of no split, else by a name that
    :func:`~.files.match_renamed` pairs without ambiguity. One file for two splits is nobody's.

    Raises:
        FileNotFoundError: if there are no captions or no audio; under ``strict``, if some audio is
            missing.
        ValueError: if a file cannot be read, a split has two captions files, a name fits files in
            two folders, or a recording is in two splits.
    """
    root = need_root(config.root, "Clotho")
    tables, files = read_folder(_LAYOUT, root, config.captions, config.audio)
    return assemble("clotho", tables, absolute(_find(tables, files), files), files.folder, config)


def read_clotho_captions(place: str | os.PathLike[str]) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_clotho` reads them.

    Args:
        place: a folder with captions files at any depth, or one file.

    Returns:
        Split to its recordings.

    Raises:
        FileNotFoundError, ValueError: see :func:`open_clotho`.
    """
    return read_captions(_LAYOUT, Path(place))


def _find(tables: dict[str, CaptionTable], files: AudioFiles) -> dict[str, list[str | None]]:
    sources = find_exactly(tables, files, elsewhere=False)
    taken = {path for paths in sources.values() for path in paths}
    for split, table in tables.items():
        items = list(table.recordings.values())
        left = [i for i, path in enumerate(sources[split]) if path is None]
        free = [path for path in files.of_split(split) if path not in taken]
        pairs = match_renamed([items[i].names[0] for i in left], free)
        for i in left:
            sources[split][i] = pairs.get(items[i].names[0])
    claims = Counter(path for paths in sources.values() for path in set(paths))
    return {
        split: [path if claims[path] == 1 else None for path in paths]
        for split, paths in sources.items()
    }


def _read_table(path: Path, split: str) -> CaptionTable:
    table = CaptionTable()
    for number, row in enumerate(read_rows(path), start=1):
        name = filled(row, audio_column(tuple(row)), path, number)
        item = Recording("", tuple(row_captions(row)), (name,), place=os.fspath(path), row=number)
        item.segment = segment_of(row, item.where)
        item.starts = "" if item.segment else starts_of(row)
        item.key = f"{split}/{html.unescape(stem_of(name))}"
        # With its suffix: rain.wav and rain.flac may be two recordings.
        whole = html.unescape(os.path.normpath(name.replace("\\", "/")))
        item.identity = f"{split}/{whole}{fragment(item.segment)}"
        table.add(item, row)
    return table


def _accepts(columns: tuple[str, ...]) -> bool:
    return bool(caption_columns(columns)) and audio_column(columns) is not None


_LAYOUT = CaptionLayout(
    "Clotho", "the columns file_name and caption_1, caption_2, ...", _accepts, _read_table
)
