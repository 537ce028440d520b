"""Any data set as one table: a row a clip or a caption, with the path of the audio."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.assemble import OpeningConfig, assemble
from atr_moco_plugin.data.opening.audio_files import describe_folder
from atr_moco_plugin.data.opening.caption_folder import required_root, shared_name_error
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.duplicates import file_identity
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, SPLITS
from atr_moco_plugin.data.sets import youtube
from atr_moco_plugin.data.sets.split_columns import SplitColumns
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import (
    Row,
    audio_column,
    caption_columns,
    cell_text,
    row_audio,
    row_captions,
)
from atr_moco_plugin.data.tables.file_names import names_path
from atr_moco_plugin.data.tables.rows import TABLE_SUFFIXES, read_rows
from atr_moco_plugin.data.tables.segments import fragment, name_places, place_note, segment_of
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import path_of_url

Names: TypeAlias = tuple[str, ...]
"""Of files."""


@dataclass(frozen=True)
class ManifestConfig(OpeningConfig):
    """How to open a manifest.

    Attributes:
        root: the manifest, or a folder with ``manifest.csv``, ``.tsv``, ``.jsonl`` or ``.json`` or
            with no other table than the manifest.
        audio: the folder that audio paths are relative to, if it is not the manifest's.
        name: the data set's, part of every clip id; give two different data sets two names.
        split: the split of rows that name none.
    """

    root: Path | None = None
    audio: Path | None = None
    name: str = "manifest"
    split: str = "train"


def open_manifest(config: ManifestConfig) -> AudioTextDataset:
    """Open a manifest: CSV, TSV or JSON with an audio path and captions in every row.

    For example ``file_name,caption,split``. The audio is in ``file_name`` or another column of
    :data:`~.column_names.AUDIO` (the first that the row fills; a further one must not name another
    file that is there), or in ``youtube_id`` (the file is ``<id>`` or ``Y<id>`` with an audio
    suffix). Captions are read by :func:`~.columns.row_captions`. Optional are a part of the file,
    read by :func:`~.segments.segment_of`, and the split in ``split``: ``val``, ``development`` and
    the like become ``valid``, ``train``, ...; other splits keep their names.

    A clip is a file, or a part of one: rows of one file are one clip, however they spell its path.
    With ``youtube_id`` a clip is a (``youtube_id``, ``start_time``). Rows with one ``clip_id`` are
    one clip as well, and their files must be equal. A clip's key is its ``clip_id``, else its
    ``id`` or ``key`` where each clip has one and no two have the same, else its path, relative to
    the audio folder.

    Raises:
        MissingFileError: if there is no manifest or no audio; under ``strict``, if some audio is
            missing.
        InputError: if the manifest cannot be read or lacks a column, a ``clip_id`` contradicts the
            files, a part is not in its file, or a recording is in two splits.
    """
    path = find_manifest(required_root(config.root, "A manifest", "table"))
    folder = os.fspath(path.parent if config.audio is None else config.audio)
    tables = read_manifest_captions(path, folder, config.split)
    lookup = FileLookup()
    for table in tables.values():
        for item in table.recordings.values():
            item.path = find_audio(lookup, folder, item)
    return assemble(config.name, tables, folder, config)


def read_manifest_captions(
    path: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None = None,
    split: str = "train",
    change: Callable[[Row], Row] | None = None,
) -> dict[str, CaptionTable]:
    """The captions alone, without audio, as :func:`open_manifest` reads them.

    Args:
        path: the manifest.
        audio: the folder that audio paths are relative to; ``None`` is the manifest's.
        split: of rows that name none.
        change: makes the row that is read of the row that is there.

    Returns:
        Split to its recordings.

    Raises:
        MissingFileError, InputError: see :func:`open_manifest`.
    """
    path = Path(path)
    folder = os.fspath(path.parent if audio is None else audio)
    tables: dict[str, CaptionTable] = {}
    splits = SplitColumns(path, SPLIT_NAMES.get(split.lower(), split))
    number = 0
    for number, row in enumerate(map(change or dict, read_rows(path)), start=1):
        names, others = audio_names(row)
        if not names or not caption_columns(tuple(row)):
            what = "a caption" if names else "the audio's path"
            raise InputError(
                f"{path}: row {number} does not say {what}; needed are one of the columns "
                f"{', '.join(column_names.AUDIO)} or youtube_id, and caption, caption_1, captions, "
                f"text, raw_text or full_text; it has {', '.join(row)[:200] or 'none'}"
            )
        table = tables.setdefault(splits.of_row(row, number), CaptionTable())
        table.add(_recording(row, names, others, folder, os.fspath(path), number), row)
    if not number:
        raise InputError(f"{path}: has no rows; write one for every clip, below the column names")
    splits.warn()
    names_in_order = [name for name in SPLITS if name in tables]
    names_in_order += [name for name in tables if name not in SPLITS]
    tables = {name: tables[name] for name in names_in_order}
    assign_keys(tables)
    return tables


def _recording(
    row: Row, names: Names, others: Names, folder: str, file: str, number: int
) -> Captioned:
    item = Captioned("", tuple(row_captions(row)), names, file, number, other_names=others)
    video = cell_text(row.get(column_names.VIDEO))
    if audio_column(tuple(row)) is None:
        key, item.shared_names = names[0], names[:2]
        item.identity = youtube.clip_name(key, youtube.start_of(row))
    else:
        if name_places(tuple(row)):
            item.segment = segment_of(row, item.where)
            note = "" if item.segment else place_note(row)
            item.place_note = ", ".join(filter(None, (video and f"youtube_id {video}", note)))
        key = _relative(names[0], folder) + fragment(item.segment)
        item.identity = key
        if len(names) > 1:  # 001.wav in one column and dogs/001.wav in another
            item.identity = _relative(max(names, key=len), folder) + fragment(item.segment)
    clip_id = cell_text(row.get(column_names.CLIP_ID))
    ids = (text for name in column_names.IDS if (text := cell_text(row.get(name))))
    item.key = clip_id or next(ids, key)
    item.has_clip_id = bool(clip_id)
    return item


def find_manifest(root: Path) -> Path:
    """The manifest that a root means: itself, or the one in that folder.

    Raises:
        MissingFileError: if there is none, or more than one.
    """
    if root.is_file():
        return root
    named = [root / f"manifest{suffix}" for suffix in TABLE_SUFFIXES]
    found = [path for path in named if path.is_file()]
    if not found and root.is_dir():
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
        # JSON beside a table is rarely another one.
        found = [path for path in found if path.suffix.lower() != ".json"] or found
    if len(found) != 1:
        raise MissingFileError(
            f"{root}: no single manifest there: looked for manifest.csv, .tsv, .jsonl or .json or "
            f"the only such file, {describe_folder(root)}; set root to the manifest itself"
        )
    return found[0]


def find_audio(lookup: FileLookup, folder: str, item: Captioned) -> str | None:
    """The file of a row that was read, None where it is not there.

    Raises:
        InputError: see :func:`named_file`; its file is there under a name that other rows share.
    """
    path = named_file(lookup, folder, item.names, item.other_names, item.where)
    if path is None:
        for name in item.shared_names:
            if lookup.find_spelling(folder, name) is not None:
                raise shared_name_error(item, name)
    return path


def audio_names(row: Row) -> tuple[Names, Names]:
    """Names that the audio of a row may have, best first, and those in further audio columns, which
    must not belong to another file: what :func:`named_file` takes. Both are empty if it names
    none."""
    if audio_column(tuple(row)) is not None:
        names = row_audio(row)
        return tuple(name for name in names if _may_be_one_file(name, names[0])), names[1:]
    video = str(row.get(column_names.VIDEO) or "")
    return (youtube.names_of(video, youtube.start_of(row)) if video else ()), ()


def named_file(
    lookup: FileLookup, folder: str, names: Names, others: Names, where: str
) -> str | None:
    """The file that a row of a table names, None where it is not there.

    Args:
        lookup: of files.
        folder: the folder that names are relative to.
        names: of the file, see :func:`audio_names`.
        others: that must not belong to another file.
        where: the table and the row, for messages.

    Raises:
        InputError: if the row names two files.
    """
    found = (lookup.find_spelling(folder, name) for name in names)
    path = next((path for path in found if path is not None), None)
    if path is None:
        return None
    for other in others:
        # One of the two would be read without a word. A title that is no file here contradicts
        # nothing.
        second = lookup.find_spelling(folder, other)
        if second is not None and file_identity(second) != file_identity(path):
            raise InputError(
                f"{where} names two files, {names[0]!r} and {other!r}; keep the column with its "
                f"audio, and rename the other (audio is looked for in "
                f"{', '.join(column_names.AUDIO)})"
            )
    return path


def _may_be_one_file(one: str, two: str) -> bool:
    """Whether two names differ in nothing but folders that one of them leaves out."""
    one, two = (os.path.normpath(name.replace("\\", "/")) for name in (one, two))
    return names_path(one, two) or names_path(two, one)


def _relative(name: str, folder: str) -> str:
    """The name as a key: however it is spelled, and below ``folder`` wherever that is."""
    name = path_of_url(name)
    if name[0] not in "/." and "/." not in name and "//" not in name and os.sep == "/":
        return name  # as most are
    path = os.path.normpath(os.path.join(folder, name))
    relative = os.path.relpath(path, folder)
    return path if os.path.isabs(name) and relative.startswith("..") else relative
