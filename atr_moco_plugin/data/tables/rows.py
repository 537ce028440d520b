"""Rows of CSV, TSV and JSON files, read as a stream: the tables of all data sets."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from atr_moco_plugin.data.opening.audio_files import AUDIO_SUFFIXES
from atr_moco_plugin.data.tables.columns import audio_column, caption_columns, known, left_captions
from atr_moco_plugin.data.tables.dialect import find_dialect
from atr_moco_plugin.data.tables.encoding import parse_json, read_text, text_encoding
from atr_moco_plugin.data.tables.segments import left_places
from atr_moco_plugin.errors import InputError, MissingFileError

Row = dict[str, object]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Files that :func:`read_rows` reads: the third and fourth hold one JSON object a line, the last
one JSON value."""

_AUDIO_FILE = re.compile(rf".*({'|'.join(map(re.escape, AUDIO_SUFFIXES))})", re.IGNORECASE)
_YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Read a table row by row, without holding it in memory but for JSON that is one value.

    The text is in one of the encodings of :func:`~.text_files.text_encoding`, the columns of CSV
    and TSV are separated and quoted as :func:`~.dialect.find_dialect` finds. JSON is one object a
    line, or a list of objects, which may be under ``"data"``. Columns that look as if they had
    captions or named a part of the audio, and are not taken, are named in a warning.

    Args:
        path: a file, of CSV or TSV but for the suffixes of JSON in :data:`TABLE_SUFFIXES`.

    Yields:
        One dictionary a row, by column name in lower case. Values of CSV and TSV files are strings,
        empty where a row ends early.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, a quote is not closed, a row does not fit its columns, or a
            row is not an object.
    """
    rows = _rows(Path(path), warn=True)
    columns = next(rows, ())
    if isinstance(columns, dict):
        yield columns
    yield from rows


def columns_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Column names of a table, in lower case; of JSON those of its first row, none where it has no
    rows.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_rows`.
    """
    path = Path(path)
    if path.suffix.lower() == ".json" and path.is_file() and json_entries(path, warn=False) is None:
        return ()
    return tuple(next(_rows(path, warn=False), ()))


def _rows(path: Path, *, warn: bool) -> Iterator[Any]:
    """The rows, and before them the column names of CSV and TSV."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a CSV, TSV or JSON file is needed")
    suffix = path.suffix.lower()
    encoding = text_encoding(path, warn=warn and suffix != ".json")
    with path.open(encoding=encoding, newline="") as file:
        if suffix not in (".json", ".jsonl", ".ndjson"):
            yield from _csv_rows(path, file, warn)
        elif suffix == ".json" or file.read(20).lstrip().startswith("["):
            yield from _json_rows(path, warn)
        else:
            file.seek(0)
            yield from _json_lines(path, file, warn)


def _csv_rows(path: Path, file: TextIO, warn: bool) -> Iterator[tuple[str, ...] | Row]:
    dialect = find_dialect(path, file, warn=warn)
    reader = csv.reader(file, **dialect.options())
    columns: tuple[str, ...] = ()
    before = dialect.before
    start = before + 1  # the line that a row begins in
    try:
        for values in reader:
            line = before + reader.line_num
            if not columns:
                columns = tuple(value.strip().lower() for value in values)
                _check_columns(path, columns)
                if warn:
                    _warn_of_left_columns(path, columns)
                yield columns
            elif len(values) > len(columns) and any(values[len(columns) :]):
                raise InputError(
                    f"{path}: line {line} has {len(values)} columns, the first line has "
                    f"{len(columns)}; put captions with the separator in them into quotes"
                )
            elif values:
                if line > start and (taken := _row_within(columns, values, dialect.separator)):
                    raise InputError(
                        f"{path}: a quote in line {start} is not closed, so that the row "
                        f"{taken!r} would be part of a caption; close it"
                    )
                values += [""] * (len(columns) - len(values))
                yield dict(zip(columns, values, strict=False))
            start = line + 1
    except csv.Error as error:
        end = before + reader.line_num
        raise InputError(
            f"{path}: line {start}{f' to {end}' if end > start else ''} is not readable as CSV "
            f"({error}); look for a quote that is not closed, and write quotes within a caption "
            "twice"
        ) from error


def _row_within(columns: tuple[str, ...], values: list[str], separator: str) -> str | None:
    """A line of a value with line breaks that is a row of its own, by the audio it names."""
    column = audio_column(columns) or "youtube_id"
    if column not in columns:
        return None
    at = columns.index(column)
    audio = _YOUTUBE_ID if column == "youtube_id" else _AUDIO_FILE
    for value in values:
        for line in value.splitlines()[1:]:
            cells = line.split(separator)
            if len(cells) > max(at, 1) and audio.fullmatch(cells[at].strip(' "')):
                return line[:60]
    return None


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    """Of two columns of one name, one would be lost without a word."""
    for name in columns:
        if columns.count(name) > 1 and known(name):
            raise InputError(
                f"{path}: has {columns.count(name)} columns {name!r}; name several captions "
                "caption_1, caption_2, ..."
            )


def _json_lines(path: Path, file: TextIO, warn: bool) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(
                f"{path}: line {number} is not JSON ({error}); write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: line {number} is not a JSON object; write one object a line, such as "
                '{"audio": "a.wav", "captions": ["a dog barks"]}'
            )
        row = _lower(row)
        if warn:
            _warn_of_left_columns(path, tuple(row))
            warn = False
        yield row


def json_entries(path: str | os.PathLike[str], *, warn: bool = True) -> list[object] | None:
    """The rows of a JSON file: a list of objects, or one under ``"data"``.

    Returns:
        What the list has, objects with their names in lower case; ``None`` for other JSON, also a
        list without any object.

    Raises:
        FileNotFoundError, ValueError: if it is not there, or no JSON.
    """
    text = read_text(path, warn=warn)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); fetch it again") from error
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        return None
    entries = [_lower(row) if isinstance(row, dict) else row for row in rows]
    first = next((row for row in entries if isinstance(row, dict)), None)
    if first is None and entries and rows is content:
        return None
    if warn and first is not None:
        _warn_of_left_columns(Path(path), tuple(first))
    return entries


def _json_rows(path: Path, warn: bool) -> Iterator[Row]:
    rows = json_entries(path, warn=warn)
    if rows is None:
        raise InputError(
            f'{path}: has no list of rows; write [{{"audio": "a.wav", "captions": ["a dog '
            'barks"]}}, ...], or that list under "data"'
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(
                f"{path}: entry {number} is not a JSON object; write one for each clip"
            )
        yield row


def _warn_of_left_columns(path: Path, columns: tuple[str, ...]) -> None:
    left = left_captions(columns)
    if left:
        warnings.warn(
            f"{path}: has {', '.join(map(repr, left))[:200]}, which no caption is taken from; call "
            "columns with captions caption_1, caption_2, ...",
            stacklevel=3,
        )
    taken = caption_columns(columns)
    number = re.search(r"\d+", taken[0]) if taken else None
    if number and int(number[0]) > 1:
        warnings.warn(
            f"{path}: its captions begin with the column {taken[0]!r}; if the first ones are in "
            "another column, call that caption_1",
            stacklevel=3,
        )
    left = list(left_places(columns))
    if left:
        warnings.warn(
            f"{path}: has {', '.join(map(repr, left))[:200]}, which no part of a file is taken from"
            "; where rows are parts of their files, give start and end, or start and duration, in "
            "seconds",
            stacklevel=3,
        )


def _lower(row: dict[str, object]) -> Row:
    return {str(name).strip().lower(): value for name, value in row.items()}
