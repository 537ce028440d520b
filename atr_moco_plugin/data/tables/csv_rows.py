"""Rows of CSV and TSV files, with the line of whatever is wrong in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, audio_column, is_blank, is_used_column
from atr_moco_plugin.data.tables.dialect import Dialect, find_dialect
from atr_moco_plugin.data.tables.file_names import AUDIO_SUFFIXES, suffix_of
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_letters

_UNNAMED = re.compile(r"|unnamed: \d+")  # pandas writes the second
_VIDEO_ID = re.compile(r"[\w-]{11}", re.ASCII)


def read_csv(path: Path, file: TextIO, *, warn: bool) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Column names as rows have them, and the rows, which are read one by one.

    Args:
        path: the file, for messages and its suffix.
        file: it, opened with ``newline=""``.
        warn: name an unusual separator in a warning.

    Raises:
        InputError: if two columns that are used have one name, a quote is not closed, or a row does
            not fit the columns.
    """
    dialect = find_dialect(path, file, warn=warn)
    rows = _numbered_rows(path, file, dialect)
    _, _, names = next(rows, (0, 0, []))
    columns = column_names.column_names_of(tuple(names))
    for name in columns:
        # One of the two would be lost without a word.
        if columns.count(name) > 1 and is_used_column(name):
            raise InputError(
                f"{path}: has {columns.count(name)} columns {name!r}; name several captions "
                "caption_1, caption_2, ..."
            )
    return columns, _rows(path, names, rows, dialect.separator)


def _numbered_rows(
    path: Path, file: TextIO, dialect: Dialect
) -> Iterator[tuple[int, int, list[str]]]:
    """First and last line and cells of every row that has a cell with something in it."""
    reader = csv.reader(file, **dialect.options())
    start = dialect.lines_before + 1
    try:
        for cells in reader:
            end = dialect.lines_before + reader.line_num
            if any(map(str.strip, cells)):  # Excel keeps rows that were emptied
                yield start, end, cells
            start = end + 1
    except csv.Error as error:
        end = dialect.lines_before + reader.line_num
        raise InputError(
            f"{path}: line {start}{f' to {end}' if end > start else ''} is not readable as CSV "
            f"({error}); look for a quote that is not closed, and write quotes within a caption "
            "twice"
        ) from error


def _rows(
    path: Path,
    names: list[str],
    rows: Iterator[tuple[int, int, list[str]]],
    separator: str,
) -> Iterator[Row]:
    columns = column_names.column_names_of(tuple(names))
    named = len(columns)
    while named and _UNNAMED.fullmatch(columns[named - 1]):
        named -= 1  # Excel ends lines with commas where a column was emptied
    fixed = all(name.strip().lower() in columns for name in names)
    for start, end, cells in rows:
        if len(cells) > len(columns) and any(map(str.strip, cells[len(columns) :])):
            raise InputError(
                f"{path}: line {end} has {len(cells)} columns, the first line has {len(columns)}; "
                "put captions with the separator in them into quotes"
            )
        if words := [cell for cell in cells[named:] if has_letters(cell) and not is_blank(cell)]:
            raise InputError(
                f"{path}: line {end} has {words[0].strip()[:60]!r} behind the last column with a "
                "name; put captions with the separator in them into quotes, or name the column"
            )
        if end > start and (row := _row_within(columns, cells, separator)):
            raise InputError(
                f"{path}: a quote in line {start} is not closed, so that the row {row!r} would be "
                "part of a caption; close it"
            )
        cells += [""] * (len(columns) - len(cells))
        own = columns if fixed else column_names.names_in_row(names, cells)
        yield dict(zip(own, cells, strict=False))


def _row_within(columns: tuple[str, ...], cells: list[str], separator: str) -> str | None:
    """A line within a cell that is a row of its own, since it names audio in the right place."""
    column = audio_column(columns) or column_names.VIDEO
    if column not in columns:
        return None
    at = columns.index(column)
    for cell in cells:
        for line in cell.splitlines()[1:]:
            parts = line.split(separator)
            if len(parts) <= max(at, 1):
                continue
            name = parts[at].strip(' "')
            is_video = column == column_names.VIDEO
            if _VIDEO_ID.fullmatch(name) if is_video else suffix_of(name) in AUDIO_SUFFIXES:
                return line[:60]
    return None
