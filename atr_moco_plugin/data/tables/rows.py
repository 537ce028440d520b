"""Rows of CSV, TSV and JSON files, read as a stream: the tables of all data sets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from atr_moco_plugin.data.tables.column_names import column_name, names_in_row
from atr_moco_plugin.data.tables.columns import (
    Row,
    caption_columns,
    is_used_column,
    sound_column,
)
from atr_moco_plugin.data.tables.csv_rows import read_csv
from atr_moco_plugin.data.tables.encoding import KeyTwiceError, parse_json, read_json, text_encoding
from atr_moco_plugin.data.tables.unread import warned_rows
from atr_moco_plugin.errors import InputError, MissingFileError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Files that :func:`read_rows` reads: the third and fourth hold one JSON object a line, the last
one JSON value."""


def read_rows(
    path: str | os.PathLike[str], *, warn: bool = True, captions: bool = True
) -> Iterator[Row]:
    """Read a table row by row. Only JSON that is one value is held in memory.

    The text is in one of the encodings of :func:`~.encoding.text_encoding`. Columns of CSV and TSV
    are separated and quoted as :func:`~.dialect.find_dialect` finds. JSON is one object a line, or
    a list of objects, which may be under ``"data"``, in any case. Warnings are those of
    :func:`~.unread.warned_rows`.

    Args:
        path: a file with a suffix of JSON in :data:`TABLE_SUFFIXES`; any other is CSV or TSV.
        warn: whether to warn of what is not read from the rows.
        captions: whether captions are among what is read.

    Yields:
        One dictionary a row, by :func:`~.column_names.column_name`. Values of CSV and TSV files
        are strings, empty where a row ends early.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not text, a quote is not closed, a row does not fit its columns, or a
            row is not an object.
    """
    with _open_table(Path(path), warn=True) as (columns, rows):
        yield from warned_rows(path, columns, rows, captions=captions) if warn else rows


def columns_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Column names of a table, as rows have them. Those of JSON are the names in its first row, and
    none where it has no rows.

    Raises:
        MissingFileError, InputError: see :func:`read_rows`.
    """
    with _open_table(Path(path), warn=False) as (columns, _):
        return columns


def json_entries(path: Path) -> list[object] | None:
    """The entries of a JSON file: a list of objects, or one under ``"data"``.

    Returns:
        The list; its objects have their names as rows have them. ``None`` for other JSON, such as a
        list without any object.

    Raises:
        MissingFileError, InputError: if it is not there, or no JSON.
    """
    entries = _entries(path, _read_json_table(path, warn=True))
    rows = (entry for entry in entries or () if isinstance(entry, dict))
    deque(warned_rows(path, (), rows), maxlen=0)
    return entries


@contextmanager
def _open_table(path: Path, *, warn: bool) -> Iterator[tuple[tuple[str, ...], Iterator[Row]]]:
    """Column names and rows of a file that stays open as long as they are read."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a CSV, TSV or JSON file is needed")
    suffix = path.suffix.lower()
    with path.open(encoding=text_encoding(path, warn=warn), newline="") as file:
        if suffix not in (".json", ".jsonl", ".ndjson"):
            yield read_csv(path, file, warn=warn)
        elif suffix == ".json" or file.read(20).lstrip().startswith("["):
            content = _read_json_table(path, warn=False)
            entries = _entries(path, content)
            yield _first_names(entries), _rows_of_list(path, entries, content)
        else:
            file.seek(0)
            rows = _rows_of_lines(path, file)
            first = next(rows, None)  # a row without columns is a row too
            yield tuple(first or ()), chain([] if first is None else [first], rows)


def _entries(path: str | os.PathLike[str], content: Any) -> list[object] | None:
    rows = _under_data(path, content) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        return None
    entries = [
        _lower(row, f"{path}: entry {number}") if isinstance(row, dict) else row
        for number, row in enumerate(rows, start=1)
    ]
    if entries and rows is content and not any(isinstance(row, dict) for row in entries):
        return None
    return entries


def _under_data(path: str | os.PathLike[str], content: Mapping[str, object]) -> object:
    named = [rows for name, rows in content.items() if column_name(name) == "data"]
    lists = [rows for rows in named if isinstance(rows, list)]
    if len(lists) > 1:
        raise InputError(f"{path}: has the key 'data' twice in other letters; keep one")
    return next(iter(lists or named), None)


def check_key_of_rows(path: Path) -> None:
    """Refuse a JSON file that has rows with files and captions under another key than ``"data"``.

    Raises:
        MissingFileError, InputError: for such a file; if it is not there, or no JSON.
    """
    _check_key(path, _read_json_table(path, warn=False))


def _check_key(path: Path, content: object) -> None:
    if not isinstance(content, dict) or any(column_name(name) == "data" for name in content):
        return
    for name, rows in content.items():
        if isinstance(rows, list) and any(isinstance(x, dict) and _is_caption_row(x) for x in rows):
            raise InputError(
                f'{path}: has rows with captions under {name!r}, expected under "data": rename the '
                f'key {name!r} to "data"'
            )


def _read_json_table(path: Path, *, warn: bool) -> Any:
    try:
        return read_json(path, warn=warn)
    except InputError as error:
        if isinstance(error.__cause__, JSONDecodeError) and error.__cause__.msg == "Extra data":
            raise InputError(
                f"{path}: has one JSON value after another, as a file with an object a line has; "
                f"call it {path.stem}.jsonl"
            ) from error
        raise


def _is_caption_row(row: Mapping[str, object]) -> bool:
    names = tuple(map(column_name, row))
    return bool(caption_columns(names) and sound_column(names))


def _first_names(entries: list[object] | None) -> tuple[str, ...]:
    return next((tuple(row) for row in entries or () if isinstance(row, dict)), ())


def _rows_of_list(path: Path, entries: list[object] | None, content: object) -> Iterator[Row]:
    if entries is None:
        _check_key(path, content)
        raise InputError(
            f'{path}: has no list of rows; write [{{"audio": "a.wav", "captions": ["a dog '
            'barks"]}}, ...], or that list under "data"'
        )
    for number, row in enumerate(entries, start=1):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: entry {number} is not a JSON object; write one for each clip"
            )
        yield row


def _rows_of_lines(path: Path, file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except KeyTwiceError as error:
            raise InputError(f"{path}: in line {number} {error}; keep one") from error
        except ValueError as error:
            raise InputError(
                f"{path}: line {number} is not JSON ({error}); write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: line {number} is not a JSON object; write one object a line, such as "
                '{"audio": "a.wav", "captions": ["a dog barks"]}'
            )
        yield _lower(row, f"{path}: line {number}")


def _lower(row: Mapping[str, object], where: str) -> Row:
    names = names_in_row(tuple(row), row.values())
    found = dict(zip(names, row.values(), strict=True))
    if len(found) < len(row):
        twice = [name for name in names if names.count(name) > 1 and is_used_column(name)]
        if twice:
            raise InputError(f"{where} has the key {twice[0]!r} twice in other letters; keep one")
    return found
