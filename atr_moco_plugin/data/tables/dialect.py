"""How the columns of a CSV or TSV file are separated and quoted, found out from the file."""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from atr_moco_plugin.data.tables.columns import is_known_column
from atr_moco_plugin.errors import InputError

_SEPARATORS = ",;\t|"
_SAYS_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*')  # a first line for Excel alone
_CLOSED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Dialect:
    """How a file is to be read.

    Attributes:
        separator: between its columns.
        quoted: whether quotes around a cell belong to the file's form and not to its text.
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
    """Find out the dialect of a file, and leave it at its first line.

    The separator is the one of comma, semicolon, tab and ``|`` that gives the line of column names
    the most names that are known here. Cells between tabs are quoted only where the whole file
    shows that a program quoted them: every name of a column is in quotes, or every cell in quotes
    has a quote in it, written twice, or no row has its columns otherwise.

    Args:
        path: the file, for messages and its suffix.
        file: it, opened with ``newline=""``.
        warn: name a separator that is not the suffix's own in a warning.

    Raises:
        ValueError: if two separators or both ways to read quotes are as likely.
    """
    header, before = file.readline(), 0
    said = _SAYS_SEPARATOR.fullmatch(header)
    while header and (not header.strip() or (said and not before)):
        header, before = file.readline(), before + 1
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


def _separator(path: Path, header: str, usual: str) -> str:
    points: dict[str, int] = {}
    for separator in _SEPARATORS:
        try:
            cells = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            continue
        if len(cells) > 1:
            points[separator] = sum(is_known_column(cell.strip().lower()) for cell in cells)
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
    """Whether quotes around the cells of a file with tabs were written by a program."""
    names = header.rstrip("\r\n").split("\t")
    if '"' not in header and not any('"' in block for block in iter(lambda: file.read(2**16), "")):
        return False
    file.seek(0)
    for _ in range(line):
        file.readline()
    if all(map(_CLOSED.fullmatch, names)):
        return True
    opened = needed = bare = 0  # the lines where such cells were seen first
    for number, row in enumerate(file, start=line + 1):
        if '"' not in row:
            continue
        for cell in row.rstrip("\r\n").split("\t"):
            if not cell.startswith('"'):
                continue
            closed = _CLOSED.fullmatch(cell)
            if closed is None:
                opened = opened or number
            elif '""' in closed[1]:
                needed = needed or number
            elif closed[1]:
                bare = bare or number
    if opened:
        return not _rows_fit(file, len(names), quoted=False) and _rows_fit(
            file, len(names), quoted=True
        )
    if needed and bare:
        raise InputError(
            f"{path}: line {needed} writes a quote within a cell twice, so that quotes around "
            f"cells are not part of their text, and line {bare} has quotes around a cell that "
            "needs none; quote every cell with a quote in it, or none"
        )
    return bool(needed)


def _rows_fit(file: TextIO, columns: int, *, quoted: bool) -> bool:
    file.seek(0)
    try:
        return all(
            len(cells) in (0, columns)
            for cells in csv.reader(file, **Dialect("\t", quoted).options())
        )
    except csv.Error:
        return False
