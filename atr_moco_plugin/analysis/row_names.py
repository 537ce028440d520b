"""What the rows of a file of embeddings are of: names and ids, in the file or in JSON beside it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.data.tables.segments import plain_number
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.io.digests import sha256_of

Ids = dict[str, list[str | None]]
"""Columns of ids by their titles; None for a row without one."""

NAME_TITLES = {"audio": ("paths", "clips"), "text": ("sentences", "captions")}
"""Under which titles JSON has the names of rows of a kind."""

MOST_PAIRS = 1_000_000
"""That ids may make which repeat on both sides, as those of a few classes do."""

_ID_COLUMNS = ("name", "id", "key", "path", "file_name")
_TEXT_COLUMNS = ("text", "sentence", "caption")


def names_beside(path: Path, rows: Tensor) -> tuple[str, list[str]] | None:
    """The kind and the names of a ``.npy``'s rows from ``NAME.npy.json``; None where it has none.

    Raises:
        InputError: if the JSON cannot be read, or is of another ``.npy``.
    """
    beside = path.with_name(path.name + ".json")
    about = described(beside, beside.read_text("utf-8")) if beside.is_file() else {}
    if not isinstance(about, dict):
        return None
    for kind, titles in NAME_TITLES.items():
        for title in titles:
            if title in about:
                names = checked_names(beside, about[title], rows)
                _check_digest(beside, about.get("sha256"), path)
                return kind, names
    return None


def _check_digest(beside: Path, expected: object, path: Path) -> None:
    if expected is None:
        warnings.warn(
            f"{beside} has no SHA-256 of {path.name}, so the names in it may be of an earlier "
            f"{path.name}: embed again if another program has written it since.",
            stacklevel=1,
        )
    elif expected != sha256_of(path):
        raise InputError(
            f"{beside}: its SHA-256 is not that of {path.name}, which was written anew, so the "
            f"names may be of other rows: embed again, or remove {beside.name} to use the rows "
            "without names."
        )


def described(path: Path, text: str) -> Any:
    """What JSON says of embeddings.

    Raises:
        InputError: if it is none.
    """
    try:
        return json.loads(text)
    except ValueError as ex:
        raise InputError(f"{path}: its description is no JSON ({ex}); write it again.") from ex


def checked_names(path: Path, names: Any, rows: Tensor) -> list[str]:
    """The names of all rows.

    Raises:
        InputError: if there are more or fewer, as beside a file that was written anew.
    """
    if not isinstance(names, list) or rows.dim() == 0 or len(names) != len(rows):
        count = f"{len(names):,}" if isinstance(names, list) else "no list of"
        raise InputError(
            f"{path}: has {count} names for embeddings of shape {list(rows.shape)}; the two are "
            "not of one file: embed again."
        )
    return [str(name) for name in names]


def names_in_table(table: Any, kind: str | None) -> list[str] | None:
    """The names of the rows of a ``pyarrow`` table; empty where a cell is."""
    titles = [*_ID_COLUMNS[:3], *_TEXT_COLUMNS, *_ID_COLUMNS[3:]]
    if kind == "text":  # captions files name a sentence by its text
        titles.sort(key=lambda title: title not in _TEXT_COLUMNS)
    title = next((title for title in titles if title in table.column_names), None)
    return None if title is None else [_text(x) or "" for x in table[title].to_pylist()]


def ids_in_table(table: Any, *, sentences: bool) -> Ids:
    """The columns of a ``pyarrow`` table by which its rows may be joined with another's.

    Args:
        table: of the rows.
        sentences: whether the rows are those of a file of ``embed``, which have a sentence for a
            name, and an id that no sound has.
    """
    columns = {
        title: [_text(x) for x in table[title].to_pylist()]
        for title in _ID_COLUMNS
        if title in table.column_names
    }
    if sentences and "name" in columns:
        columns = {"sentence": columns["name"]}
    return {title: ids for title, ids in columns.items() if any(x is not None for x in ids)}


def _text(cell: object) -> str | None:
    """A name or an id as text; None where the cell is empty.

    Where a cell is empty, pandas makes floats of whole numbers: 7.0 is the id 7.
    """
    if cell is None or cell != cell:
        return None
    text = plain_number(cell) if isinstance(cell, float) else str(cell)
    return text if text.strip() else None


def rows_of_one_id(
    audio: Ids, text: Ids, files: tuple[str, str]
) -> tuple[Tensor | None, list[str]]:
    """Join the rows of two sides that have the same id under the same title.

    Of several titles the one decides that says most: first those that name each row of both sides
    once, and the same ones; then those without repeated ids on one side; then the others. A title
    with repeats of one value alone on both sides is no id.

    Args:
        audio: the ids of the first side.
        text: those of the second.
        files: what both are called, for messages.

    Returns:
        ``[P, 2]`` int64, or None where nothing is to be joined by or ids that each side has once
        are in one order, and notes.

    Raises:
        InputError: if both sides have such columns, and share no id, or ids that repeat on both
            sides make more than :data:`MOST_PAIRS` pairs.
    """
    titles = [t for t in audio if t in text and not _says_nothing(audio[t], text[t])]
    for title in sorted(titles, key=lambda title: _doubt(audio[title], text[title])):
        first, second = audio[title], text[title]
        # Rows of one id all belong together, also where both sides list them in one order.
        if first == second and None not in first and not _repeats(first):
            return None, []
        pairs = _pairs(first, second, f"The ids of {files[0]} and {files[1]} in {title!r}")
        if not len(pairs):
            continue
        notes = [
            f"No pairs are given: rows of one id belong together, since both files have ids in "
            f"the column {title!r}."
        ]
        for file, ids in zip(files, (first, second), strict=True):
            if None in ids:
                notes.append(
                    f"{ids.count(None):,} of {len(ids):,} rows of {file} have no id and no partner."
                )
        return pairs, notes
    if not titles:
        return None, []
    one, other = (next(x for x in of[titles[0]] if x is not None) for of in (audio, text))
    raise InputError(
        f"{files[0]} and {files[1]} both have ids in {listed([repr(x) for x in titles])} and share "
        f"none, such as {one!r} and {other!r}: write them in one way, leave the column out of one "
        "file if row i belongs to row i, or give --pairs."
    )


def _says_nothing(first: Sequence[str | None], second: Sequence[str | None]) -> bool:
    """Whether all rows of each side have one value, as of a column that names the data set."""
    values = [{*ids} - {None} for ids in (first, second)]
    return all(len(x) == 1 for x in values) and _repeats(first) and _repeats(second)


def _doubt(first: Sequence[str | None], second: Sequence[str | None]) -> int:
    """How likely ids mean something else than one item: 0 where both sides have the same ones once,
    2 where they repeat on both sides."""
    repeats = _repeats(first) + _repeats(second)
    return 0 if not repeats and {*first} == {*second} else max(1, repeats)


def _repeats(ids: Sequence[str | None]) -> bool:
    there = [x for x in ids if x is not None]
    return len({*there}) < len(there)


def _pairs(first: Sequence[str | None], second: Sequence[str | None], what: str) -> Tensor:
    """``[P, 2]``: the rows of both sides that have one id, in the order of the second."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(first):
        if name is not None:
            rows.setdefault(name, []).append(row)
    partners = [rows.get(name, []) if name is not None else [] for name in second]
    total = sum(map(len, partners))
    if total > max(MOST_PAIRS, len(first), len(second)):
        raise InputError(
            f"{what} repeat on both sides and make {total:,} pairs, more than {MOST_PAIRS:,}: "
            "leave the column out of one file if row i belongs to row i, or give --pairs."
        )
    return torch.tensor([[a, t] for t, of_one in enumerate(partners) for a in of_one])
