"""What tables say of a folder of sounds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable, assign_keys
from atr_moco_plugin.data.opening.file_lookup import FileLookup
from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, split_in_name
from atr_moco_plugin.data.sets.folder_files import find_moved
from atr_moco_plugin.data.sets.folder_notes import examples
from atr_moco_plugin.data.sets.folder_reading import FolderContent
from atr_moco_plugin.data.sets.label_captions import label_columns, with_label_as_caption
from atr_moco_plugin.data.sets.manifest import find_audio, read_manifest_captions
from atr_moco_plugin.data.sets.row_recordings import recording_of_rows, said_recordings
from atr_moco_plugin.data.sets.split_columns import check_split_of_table
from atr_moco_plugin.data.tables.columns import Row, caption_columns, sound_column
from atr_moco_plugin.data.tables.rows import (
    columns_of,
    read_rows,
)
from atr_moco_plugin.errors import InputError


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
    files = sound_column(columns)
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
