"""The formats of files with relevance judgements, line by line, before any name is looked up."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from atr_moco_plugin.data.tables.column_names import AUDIO
from atr_moco_plugin.data.tables.rows import columns_of, read_rows
from atr_moco_plugin.errors import InputError

QUERY_COLUMNS = ("query", "caption", "text")
"""Names of the column with the sentence."""

LIST_COLUMNS = ("audio_filenames", "file_names", "fnames")
"""Names of a column with all relevant files of the sentence; the first is DCASE's."""

ITEM_COLUMNS = ("item", "clip", "key")
"""Names of the column with one clip, beside those that audio files have in captions files."""

GRADE_COLUMNS = ("grade", "relevance", "rel")
"""Names of the column with the grade."""

TREC_SUFFIXES = (".qrels", ".qrel", ".txt")
"""Files in the format of TREC; all others are tables."""


_LARGEST = 2**31
"""Larger grades, such as a clip's number in the wrong column, are no grades."""


class Judgement(NamedTuple):
    """One line of a file.

    Attributes:
        row: where it is, such as ``row 3``.
        query: the sentence or its id.
        files: names or ids of clips; all have the one grade.
        grade: 0 or more.
        whole: whether the line claims to have all files of its query.
    """

    row: str
    query: str
    files: Sequence[str]
    grade: int
    whole: bool


def read_table(path: Path) -> Iterator[Judgement]:
    """The rows of a table, with a list of files in each or with one clip and its grade.

    Raises:
        InputError: if a column is missing, a row of JSON lacks one that the first row has or has
            a grade or a list that the first row lacks, or a cell is not what its column says.
    """
    columns = columns_of(path)
    query = _column(path, columns, QUERY_COLUMNS, "the sentence")
    grade = next((name for name in GRADE_COLUMNS if name in columns), None)
    files = next((name for name in LIST_COLUMNS if name in columns), None)
    item = None if files else _column(path, columns, (*ITEM_COLUMNS, *AUDIO), "the clip")
    if item and not grade:
        raise InputError(
            f"{path}: has the columns {', '.join(map(repr, columns))}, none of them "
            f"{' or '.join(map(repr, GRADE_COLUMNS))}; add the grade of each pair, 0 is irrelevant."
        )
    for number, row in enumerate(read_rows(path), start=1):
        where = f"row {number}"
        text = _text(row, query)
        if not text:
            raise InputError(f"{path}: {where} has no {query}; write a sentence of the split.")
        for used, names in ((grade, GRADE_COLUMNS), (files, LIST_COLUMNS)):
            more = next((name for name in names if name in row), None)
            if used is None and more is not None:
                raise InputError(
                    f"{path}: {where} has {more!r}, which the first row lacks, so that it is not "
                    "known what rows without it mean; give it to every row."
                )
        yield Judgement(
            where,
            text,
            _names(path, where, row.get(files), files) if files else [_text(row, item or "")],
            1 if grade is None else _grade(path, where, row.get(grade)),
            whole=grade is None,
        )


def _column(path: Path, columns: Sequence[str], names: Sequence[str], what: str) -> str:
    for name in names:
        if name in columns:
            return name
    raise InputError(
        f"{path}: has the columns {', '.join(map(repr, columns)) or 'none'}, but none for {what}, "
        f"such as {names[0]!r}; see the formats in docs/graded.md."
    )


def _text(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _names(path: Path, where: str, value: object, column: str) -> list[str]:
    """The names in a cell, a list in the notation of Python or JSON."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None  # all of which Python may raise, the third for `{[]: 1}`
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise InputError(
            f"{path}: {where}, column {column!r} is no list of files; write it as "
            "['a.wav', 'b.wav']."
        )
    return list(value)


def _grade(path: Path, where: str, value: object) -> int:
    try:
        number = float(str(value))
        if isinstance(value, bool) or not number.is_integer() or not 0 <= number <= _LARGEST:
            raise ValueError
    except ValueError:
        raise InputError(
            f"{path}: {where} has the grade {str(value)[:40]!r}, expected a whole number of 0 or "
            "more; 0 is irrelevant."
        ) from None
    return int(number)


def read_trec(path: Path) -> Iterator[Judgement]:
    """The lines of a qrels file, ``query 0 item grade``.

    Raises:
        InputError: if a line has another form, or the file is not text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as ex:
        raise InputError(f"{path} cannot be read as UTF-8 text: {ex}.") from ex
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 4:
            raise InputError(
                f"{path}: {where} has {len(parts)} fields, expected four: query, 0, item, grade."
            )
        yield Judgement(where, parts[0], [parts[2]], _grade(path, where, parts[3]), whole=False)
