"""Rows of CSV, TSV and JSON-lines files, read as a stream, and the columns that captions are in."""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import os
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from atr_moco_plugin.errors import InputError, MissingFileError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Files that :func:`read_rows` reads; the last two hold one JSON object a line."""

AUDIO_COLUMNS = ("file_name", "fname", "filename", "audio", "wav", "path", "audio_path")
"""Names of the column with the audio file, the first that is there counts."""

_CAPTION_COLUMNS = ("caption", "captions", "text", "raw_text", "full_text")
_NUMBERED = re.compile(r"captions?_?(\d+)")
_CHUNK = 2**20
_MAX_DEPTH = 50
_HALF_PAIR = re.compile(r"\\u[dD]")


def read_rows(path: str | os.PathLike[str]) -> Iterator[dict[str, object]]:
    """Read a table row by row, without holding it in memory.

    The text is UTF-8 (with or without a byte order mark) or, where it is not valid UTF-8, Latin-1.
    Tabs separate the columns of a ``.tsv`` file and of one whose first line has tabs and no comma.

    Args:
        path: a file with one of :data:`TABLE_SUFFIXES`.

    Yields:
        One dictionary a row, by column name in lower case. Values of CSV and TSV files are strings,
        empty where a row ends early.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, a row does not fit its columns, or a line is not an object.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a CSV, TSV or JSON-lines file is needed")
    with path.open(encoding=text_encoding(path), newline="") as file:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            yield from _json_rows(path, file)
        else:
            yield from _csv_rows(path, file)


def columns_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Column names of a table, in lower case; none for a table without rows.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_rows`.
    """
    for row in read_rows(path):
        return tuple(row)
    return ()


def read_text(path: str | os.PathLike[str]) -> str:
    """A whole text file, UTF-8 or else Latin-1.

    Raises:
        FileNotFoundError, ValueError: if it is not there, or not text.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; set the path of the captions")
    return path.read_text(encoding=text_encoding(path))


def parse_json(content: str | bytes) -> Any:
    """Parse JSON that anyone may have written.

    Half of a surrogate pair (``\\ud800``), which neither files nor tokenizers take, becomes ``?``.

    Raises:
        ValueError: if it is no JSON, or lists and objects are nested more than 50 deep.
    """
    text = content
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError("its lists are nested too deeply") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _deeper(value, _MAX_DEPTH):
        raise InputError("its lists are nested too deeply")
    if _HALF_PAIR.search(text):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _deeper(value: object, levels: int) -> bool:
    containers = [value]
    for _ in range(levels + 1):
        inner = (x.values() if isinstance(x, dict) else x for x in containers)
        containers = [x for items in inner for x in items if isinstance(x, (dict, list))]
        if not containers:
            return False
    return True


def text_encoding(path: Path) -> str:
    """``"utf-8-sig"`` where all of the file is valid UTF-8, else ``"latin-1"``.

    Raises:
        ValueError: if the file has zero bytes, as archives, spreadsheets and UTF-16 have.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding = "utf-8-sig"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if b"\0" in chunk:
                raise InputError(
                    f"{path}: is not a text file (it has zero bytes); give a CSV, TSV or JSON file "
                    "in UTF-8 or Latin-1"
                )
            if encoding == "latin-1":
                continue
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                encoding = "latin-1"
    if encoding != "latin-1" and decoder.getstate()[0]:
        return "latin-1"  # it ends within a character
    return encoding


def _csv_rows(path: Path, file: TextIO) -> Iterator[dict[str, object]]:
    tabs = path.suffix.lower() == ".tsv"
    if not tabs:
        first = file.readline()
        tabs = "\t" in first and "," not in first
        file.seek(0)
    reader = csv.reader(file, delimiter="\t" if tabs else ",")
    columns: list[str] = []
    try:
        for values in reader:
            if not columns:
                columns = [value.strip().lower() for value in values]
                _check_columns(path, columns)
                continue
            if len(values) > len(columns) and any(values[len(columns) :]):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(values)} columns, the first line has "
                    f"{len(columns)}; put captions with the separator in them into quotes"
                )
            if values:
                values += [""] * (len(columns) - len(values))
                yield dict(zip(columns, values, strict=False))
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num} is not readable as CSV ({error}); look for a quote "
            "that is not closed"
        ) from error


def _check_columns(path: Path, columns: list[str]) -> None:
    """Of two columns of one name, one would be lost without a word."""
    used = {*AUDIO_COLUMNS, *_CAPTION_COLUMNS, "youtube_id"}
    for name in columns:
        if columns.count(name) > 1 and (name in used or _NUMBERED.fullmatch(name)):
            raise InputError(
                f"{path}: has {columns.count(name)} columns {name!r}; name several captions "
                "caption_1, caption_2, ..."
            )


def _json_rows(path: Path, file: TextIO) -> Iterator[dict[str, object]]:
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
        yield {str(name).strip().lower(): value for name, value in row.items()}


@lru_cache(maxsize=1024)
def caption_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns with captions: ``caption_1, caption_2, ...`` in order, or else the first there is
    of ``caption``, ``captions``, ``text``, ``raw_text`` and ``full_text``."""
    numbers = {name: int(match[1]) for name in columns if (match := _NUMBERED.fullmatch(name))}
    if numbers:
        return tuple(sorted(numbers, key=numbers.__getitem__))
    return tuple(name for name in _CAPTION_COLUMNS if name in columns)[:1]


@lru_cache(maxsize=1024)
def audio_column(columns: tuple[str, ...]) -> str | None:
    """The column with the audio file, ``None`` if there is none."""
    return next((name for name in AUDIO_COLUMNS if name in columns), None)


def row_captions(row: Mapping[str, object]) -> list[str]:
    """The captions of a row, stripped; an empty one is an empty string.

    A JSON list gives its texts, and so does a list that was written into a CSV cell, in JSON's or
    Python's notation (``['a dog barks', 'a bark']``, numpy's without commas as well).
    """
    texts: list[str] = []
    for column in caption_columns(tuple(row)):
        texts.extend(_texts(row[column]))
    return texts


def _texts(value: object) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("[") and text.endswith("]"):
        listed = _listed(text)
        if listed is not None:
            return [item.strip() for item in listed]
    return [text]


def _listed(text: str) -> list[str] | None:
    """The strings of a list in JSON's, Python's or numpy's notation; None for any other text."""
    try:
        items = parse_json(text)
    except ValueError:
        pass
    else:
        return items if all(isinstance(item, str) for item in items) else None
    # By tokens, because Python would join the neighbours in numpy's ['a' 'b'].
    strings = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                item = ast.literal_eval(token.string)
                if not isinstance(item, str):
                    return None
                strings.append(item)
            elif token.string.strip() not in ("[", "]", ",", ""):
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return strings or None
