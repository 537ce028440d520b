"""The dialect of a CSV or TSV file: how its columns are separated and quoted.

``csv.Sniffer`` guesses from the characters of all cells and takes commas in captions for
separators. Here the column names decide, since they are known.
"""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from atr_moco_plugin.data.tables.column_names import column_name
from atr_moco_plugin.data.tables.columns import is_known_column, sound_column, text_columns
from atr_moco_plugin.errors import InputError

_SEPARATORS = ",;\t|"
_SAYS_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*')  # a first line for Excel alone
LINES_OF_TITLE = 10
"""How far below a title column names are looked for."""

_CLOSED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Dialect:
    """How a file is to be read.

    Attributes:
        separator: between its columns.
        quoted: whether quotes around a cell belong to the format and not to the text.
        lines_before: lines before the one with the column names.
    """

    separator: str
    quoted: bool = True
    lines_before: int = 0

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`csv.reader`."""
        return {
            "delimiter": self.separator,
            "quoting": csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            "strict": True,
        }


def find_dialect(path: Path, file: TextIO, *, warn: bool = True) -> Dialect:
    """Find the dialect of a file, and leave the file at its line of column names.

    The separator is comma, semicolon, tab or ``|``: the one that splits the line of column names
    into the most known names (see :mod:`~.column_names`). Quotes around cells between tabs belong
    to the text, unless the whole file shows that a program wrote them: every column name is in
    quotes, or every cell in quotes has a quote in it that is written twice, or the rows have their
    columns in no other way.

    Args:
        path: the file, for messages and its suffix.
        file: it, opened with ``newline=""``.
        warn: name a separator that is unusual for the suffix in a warning.

    Raises:
        InputError: if two separators or both ways to read quotes are equally likely, or the column
            names are below lines with something else.
    """
    header, before = file.readline(), 0
    said = _SAYS_SEPARATOR.fullmatch(header)
    while header and (not header.strip() or (said and not before)):
        header, before = file.readline(), before + 1
    _refuse_title(path, file, header, before + 1)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    separator = said[1] if said else _separator(path, header, usual)
    if warn and not said and separator not in (usual, "\t"):
        warnings.warn(
            f"{path}: is read with {separator!r} between its columns, as its first line has it",
            stacklevel=2,
        )
    quoted = separator != "\t" or _tabs_are_quoted(path, file, header, before + 1)
    file.seek(0)
    for _ in range(before):
        file.readline()
    return Dialect(separator, quoted, before)


def _refuse_title(path: Path, file: TextIO, header: str, line: int) -> None:
    """Refuse a file whose first line is a title, above the one with the column names.

    Args:
        path: the file, for messages.
        file: it, behind its first line.
        header: that line.
        line: its number.
    """
    if any(map(is_known_column, _names(header))):
        return
    for number, row in enumerate(islice(file, LINES_OF_TITLE), start=line + 1):
        if names_sounds(row):
            names = _names(row)
            raise InputError(
                f"{path}: line {number} has the column names ({', '.join(names)[:200]}), expected "
                f"in the first line: remove what is above it ({header.strip()[:60]!r})"
            )


def names_sounds(line: str) -> bool:
    """Whether a line has the column names of a table of sounds, with captions or labels."""
    names = _names(line)
    return bool(sound_column(names) and text_columns(names))


def _names(line: str) -> tuple[str, ...]:
    """The cells of a line as column names, by whichever separator gives the most."""
    return max((_cells(line, separator) for separator in _SEPARATORS), key=len)


def _cells(line: str, separator: str) -> tuple[str, ...]:
    try:
        return tuple(map(column_name, next(csv.reader([line], delimiter=separator), [])))
    except csv.Error:
        return ()


def _separator(path: Path, header: str, usual: str) -> str:
    points: dict[str, int] = {}
    for separator in _SEPARATORS:
        cells = _cells(header, separator)
        if len(cells) > 1:
            points[separator] = sum(map(is_known_column, cells))
    most = max(points.values(), default=0)
    likely = [separator for separator in points if points[separator] == most]
    if not most:
        return usual if usual in points or len(likely) != 1 else likely[0]
    if len(likely) > 1:
        raise InputError(
            f"{path}: its columns may be separated by {' or '.join(map(repr, likely))}; take one "
            "separator for the first line"
        )
    return likely[0]


def _tabs_are_quoted(path: Path, file: TextIO, header: str, line: int) -> bool:
    """Whether quotes around the cells of a file with tabs were written by a program.

    Args:
        path: the file, for messages.
        file: it, anywhere.
        header: its line of column names.
        line: the number of that line.
    """
    names = header.rstrip("\r\n").split("\t")
    if all(map(_CLOSED.fullmatch, names)):
        return True
    file.seek(0)
    # The first line with a cell of each kind that begins with a quote.
    unclosed = doubled = plain = 0
    for number, row in enumerate(file, start=1):
        if number <= line or '"' not in row:
            continue
        for cell in row.rstrip("\r\n").split("\t"):
            closed = _CLOSED.fullmatch(cell)
            if closed is None:
                unclosed = unclosed or (number if cell.startswith('"') else 0)
            elif '""' in closed[1]:
                doubled = doubled or number
            elif closed[1]:
                plain = plain or number
    if unclosed:
        as_text, as_quotes = (_rows_fit(file, len(names), quoted=q) for q in (False, True))
        return as_quotes and not as_text
    if doubled and plain:
        raise InputError(
            f"{path}: line {doubled} writes a quote within a cell twice, so that quotes around "
            f"cells are not part of their text, and line {plain} has quotes around a cell that "
            "needs none; quote every cell with a quote in it, or none"
        )
    return bool(doubled)


def _rows_fit(file: TextIO, columns: int, *, quoted: bool) -> bool:
    """Whether every row has the columns if quotes are read in one of the two ways."""
    file.seek(0)
    try:
        rows = csv.reader(file, **Dialect("\t", quoted).options())
        return all(len(cells) in (0, columns) for cells in rows)
    except csv.Error:
        return False
