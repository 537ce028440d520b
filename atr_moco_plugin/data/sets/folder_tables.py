"""What tables say of a folder of sounds."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from atr_moco_plugin.data.opening.audio_files import list_files
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, split_in_name
from atr_moco_plugin.data.sets.folder_files import find_moved
from atr_moco_plugin.data.sets.folder_notes import examples
from atr_moco_plugin.data.sets.folder_reading import PHRASES, FolderContent
from atr_moco_plugin.data.sets.label_captions import label_columns, with_label_as_caption
from atr_moco_plugin.data.sets.manifest import find_audio, read_manifest_captions
from atr_moco_plugin.data.sets.row_recordings import recording_of_rows, said_recordings
from atr_moco_plugin.data.sets.split_columns import check_split_of_table
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.column_names import column_name
from atr_moco_plugin.data.tables.columns import Row, audio_column, caption_columns
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of, without_suffix
from atr_moco_plugin.data.tables.rows import (
    TABLE_SUFFIXES,
    check_key_of_rows,
    columns_of,
    read_rows,
)
from atr_moco_plugin.errors import InputError, listed

_KEY = re.compile(r'"([^"\\\n]{1,40})"\s*:')


def find_tables(root: Path) -> tuple[list[Path], list[str]]:
    """The tables of a folder that list its sounds with captions, and notes on those that do not.

    Tables are looked for in the folder itself, and where there is none, in its sub-folders that are
    called like splits, as Hugging Face's ``metadata.csv``.

    Raises:
        InputError: for a table with captions and no files, or files and no captions, for one that
            cannot be read, and, where there is no other table, for such JSON and for tables of
            sounds in further sub-folders.
    """
    folders = [root]
    folders += sorted(x for x in root.iterdir() if x.is_dir() and x.name.lower() in SPLIT_NAMES)
    notes: list[str] = []
    unread: list[Path] = []
    for places in ([root], folders[1:]):
        files = sorted(
            file
            for place in places
            for file in place.iterdir()
            if file.suffix.lower() in TABLE_SUFFIXES
            and file.is_file()
            and file.name != PHRASES
            and not file.name.startswith(".")
        )
        tables = [file for file in files if _lists_sounds(file, notes)]
        if tables:
            return tables, notes
        unread += files
    for file in unread:
        if file.suffix.lower() == ".json" and _looks_like_captions(file):
            _refuse_unread(file)
    _refuse_deeper(root)
    return [], notes


def _refuse_deeper(root: Path) -> None:
    """Refuse tables of sounds where none is looked for: names would be trained on in place of their
    captions."""
    files = [x for x in list_files(root) if "/" in x]
    stems = {without_suffix(x) for x in files if suffix_of(x) in AUDIO_SUFFIXES}
    # A file called like a sound is said not to be read (texts_beside): there may be many of them.
    texts = [x for x in files if suffix_of(x) in TABLE_SUFFIXES]
    others = [x for x in texts if os.path.splitext(x)[0] not in stems]
    tables = [root / x for x in others if _is_of_sounds(root / x)]
    if not tables:
        return
    names = listed([table.relative_to(root).as_posix() for table in tables])
    if len(tables) == 1:
        raise InputError(
            f"{root}: has a table of sounds in a sub-folder, {names}: move it into the folder "
            "itself, or set captions to folders or names to go by the names alone"
        )
    raise InputError(
        f"{root}: has {len(tables):,} tables of sounds in sub-folders, {names}: write one in the "
        "folder itself, with the sub-folder in each file_name (dog/012.wav), or set captions to "
        "folders or names to go by the names alone"
    )


def _is_of_sounds(file: Path) -> bool:
    """Whether a table lists sounds with captions.

    Raises:
        InputError: if it cannot be read, and may be one.
    """
    if file.suffix.lower() == ".json" and not _looks_like_captions(file):
        return False
    _refuse_unread(file)
    columns = columns_of(file)
    return bool(_sounds_column(columns) and (caption_columns(columns) or _label_columns(columns)))


def _sounds_column(columns: tuple[str, ...]) -> str:
    return audio_column(columns) or (column_names.VIDEO if column_names.VIDEO in columns else "")


def _looks_like_captions(file: Path) -> bool:
    """Whether a text, which may be no JSON, has the keys of a table of sounds with captions."""
    text = file.read_bytes().replace(b"\0", b"").decode("utf-8", "replace")
    names = tuple({column_name(name) for name in _KEY.findall(text)})
    return bool(caption_columns(names)) and (audio_column(names) or column_names.VIDEO) in names


def _refuse_unread(file: Path) -> None:
    """Refuse a table without columns: its captions would be lost, and other names trained on in
    their place."""
    try:
        columns_of(file)
        if file.suffix.lower() == ".json":
            check_key_of_rows(file)
    except InputError as ex:
        raise InputError(
            f"{ex}, or, if it is no table of sounds, take it out of the folder, or set captions to "
            "folders or names to go by the names alone"
        ) from ex


def _lists_sounds(file: Path, notes: list[str]) -> bool:
    try:
        columns = columns_of(file)
    except InputError as ex:
        if file.suffix.lower() != ".json":
            raise
        notes.append(f"{file.name} is not read: {str(ex).removeprefix(f'{file}: ')}")
        return False
    sounds = _sounds_column(columns)
    texts = caption_columns(columns) or _label_columns(columns)
    if bool(sounds) != bool(texts):
        missing = "captions" if sounds else "files"
        wanted = (*column_names.CAPTIONS, *column_names.LABELS) if sounds else column_names.AUDIO
        raise InputError(
            f"{file}: has the columns {', '.join(columns)[:200]}, of which none has the {missing}: "
            f"call it one of {', '.join(wanted)}, or set captions to folders or names to go by the "
            "names alone"
        )
    if not sounds:
        named = f"of its columns {', '.join(columns)[:200]} none" if columns else "no column"
        notes.append(
            f"{file.name} is not read: {named} is called as one of files (such as file_name) or of "
            "captions (such as caption)"
        )
    return bool(sounds)


def _label_columns(columns: Sequence[str]) -> list[str]:
    return [name for name in column_names.LABELS if name in columns]


def of_tables(root: Path, tables: Sequence[Path]) -> FolderContent:
    """The recordings that tables list.

    Args:
        root: the folder that keys are relative to.
        tables: one, or one for each split, called like it or in a folder called like it.

    Raises:
        MissingFileError, InputError: see :func:`~atr_moco_plugin.data.sets.manifest.open_manifest`;
            if a row names another split than its table, two rows of a clip name two recordings,
            or no label has a letter.
    """
    of_split = {table: _split_of(root, table) for table in tables}
    unnamed = [table.name for table, split in of_split.items() if split is None]
    if len(tables) > 1 and (unnamed or len(set(of_split.values())) < len(tables)):
        which = (
            "and not every one is called like a split" if unnamed else "two of them of one split"
        )
        raise InputError(
            f"{root}: has {len(tables)} tables of sounds, {', '.join(x.name for x in tables)[:200]}"
            f", {which}: set root to one of them, or call them train.csv, valid.csv and test.csv"
        )
    content = FolderContent({})
    labels = _labels_of(root, tables)
    lookup = FileLookup()
    read: list[tuple[_Rows, list[Captioned]]] = []
    for table, split in of_split.items():
        named = table.parent.relative_to(root).as_posix()
        prefix = "" if named == "." else f"{named}/"
        own = None if len(tables) == 1 and table.parent == root else split
        rows = _Rows(table, own, labels)
        found = read_manifest_captions(table, None, split or "train", rows.change)
        for name, its in found.items():
            items = list(its.recordings.values())
            read.append((rows, items))
            for item in items:
                item.path = find_audio(lookup, os.fspath(table.parent), item)
            content.tables.setdefault(name, CaptionTable())
            _add(content.tables[name], its, prefix)
    find_moved(root, [item for _, items in read for item in items])
    assign_keys(content.tables)
    for rows, items in read:
        content.recordings.update(rows.recordings_of(items))
    content.given = len(content.tables) > 1
    columns = columns_of(tables[0])
    texts = caption_columns(columns) or labels[:1]
    where = tables[0].name if len(tables) == 1 else f"{len(tables)} tables"
    files = audio_column(columns) or column_names.VIDEO
    content.notes.append(
        f"Captions are the column{'s' * (len(texts) > 1)} {', '.join(texts)} of {where}, files its "
        f"column {files}: {examples(content.tables)}."
    )
    return content


def _split_of(root: Path, table: Path) -> str | None:
    if table.parent != root:
        return SPLIT_NAMES[table.parent.name.lower()]
    return split_in_name(table.stem)


def _labels_of(root: Path, tables: Sequence[Path]) -> list[str]:
    """The columns of labels, where tables have no captions."""
    without = [table for table in tables if not caption_columns(columns_of(table))]
    rows = chain.from_iterable(read_rows(table, warn=False) for table in without)
    return label_columns(os.fspath(without[0] if len(without) == 1 else root), rows)


class _Rows:
    """The rows of a table as a manifest has them: with captions, and in its split.

    Args:
        table: the table, for messages.
        split: the one that it is called like; ``None`` where its rows alone say it.
        labels: the columns that stand in for captions.
    """

    def __init__(self, table: Path, split: str | None, labels: Sequence[str]) -> None:
        self._table = table
        self._split = split
        self._labels = labels
        self._number = 0
        self._recordings: dict[int, dict[str, str]] = {}  # what rows say, by their numbers

    def change(self, row: Row) -> Row:
        """The next row, as it is read."""
        self._number += 1
        if self._split is not None:
            check_split_of_table(f"{self._table}: row {self._number}", row, self._split)
        if said := said_recordings(row):
            self._recordings[self._number] = said
        return with_label_as_caption(row, self._labels)

    def recordings_of(self, items: Sequence[Captioned]) -> dict[str, str]:
        """Key of a clip to its recording, of those whose rows say one.

        Raises:
            InputError: if two rows of a clip name two recordings.
        """
        rows_of: dict[str, list[int]] = defaultdict(list)
        for item in items if self._recordings else ():
            rows = (item.row, *item.later_rows)
            rows_of[item.key] += [row for row in rows if row in self._recordings]
        return {
            key: recording_of_rows(
                key, [(f"{self._table}: row {row}", self._recordings[row]) for row in sorted(rows)]
            )
            for key, rows in rows_of.items()
            if rows
        }


def _add(table: CaptionTable, other: CaptionTable, prefix: str) -> None:
    for identity, item in other.recordings.items():
        if prefix and not item.has_clip_id:
            item.key, item.identity = prefix + item.key, prefix + item.identity
        known = table.recordings.setdefault(prefix + identity, item)
        if known is not item:
            known.merge(item)
    table.empty_captions += other.empty_captions
    table.repeated_rows += other.repeated_rows
    table.without_caption += other.without_caption
