"""What a table seems to say of its clips and is not read, in warnings."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache

from atr_moco_plugin.data.tables.columns import Row, caption_columns, unused_caption_columns
from atr_moco_plugin.data.tables.segments import half_place, unused_place_columns

_CAPTIONS = (
    "has {}, which no caption is taken from; call columns with captions caption_1, caption_2, ..."
)
_FIRST = (
    "its captions begin with the column {}; if the first ones are in another column, call that "
    "caption_1"
)
_PARTS = (
    "has {}, which no part of a sound is taken from, since each row is a whole sound here; where "
    "rows are parts, store each as a sound of its own"
)
_PLACES = (
    "has {}, which no part of a file is taken from; where rows are parts of their files, give "
    "start and end, or start and duration, in seconds"
)

_Problems = list[tuple[tuple[str, ...], str]]  # columns, and what is to be said of them


def warned_rows(
    path: str | os.PathLike[str],
    columns: tuple[str, ...],
    rows: Iterable[Row],
    *,
    parts: bool = True,
    captions: bool = True,
) -> Iterator[Row]:
    """The rows as they are, with warnings of what is not read from them.

    Each column that looks as if it had captions or named a part of the audio, and is not used, is
    named once, in whichever row it comes first: rows of JSON have keys of their own. At the end,
    the rows that name a place in their file without both its start and its end are counted.

    Args:
        path: the table, for messages.
        columns: its columns, as far as they are known before the first row.
        rows: its rows.
        parts: whether a row may be a part of its file.
        captions: whether captions are read; where not, columns of them are not named.
    """
    path = os.fspath(path)
    told: set[str] = set()
    known, latest = dict.fromkeys(columns), columns
    _warn_of_columns(path, _problems(columns, columns, parts, captions), told)
    halves, example = 0, ""
    for number, row in enumerate(rows, start=1):
        if (own := tuple(row)) != latest:
            latest = own
            known |= dict.fromkeys(own)  # in their order
            problems = _problems(own, tuple(known), parts, captions)
            _warn_of_columns(path, problems, told, f" (first in row {number:,})")
        if parts and (places := [name for name in half_place(row) if name not in told]):
            halves += 1
            example = example or f"row {number:,}, {', '.join(map(repr, places))[:200]}"
        yield row
    if halves:
        warnings.warn(
            f"{path}: rows that name a place in their file, but not both its start and its end in "
            f"seconds, are of the whole file ({halves:,}, such as {example}); fill in both, or "
            "neither",
            stacklevel=3,
        )


def _warn_of_columns(path: str, problems: _Problems, told: set[str], where: str = "") -> None:
    for names, problem in problems:
        if new := [name for name in names if name not in told]:
            told.update(new)
            shown = ", ".join(map(repr, new))[:200]
            warnings.warn(f"{path}: {problem.format(shown)}{where}", stacklevel=4)


@lru_cache(maxsize=1024)
def _problems(
    columns: tuple[str, ...], known: tuple[str, ...], parts: bool, captions: bool
) -> _Problems:
    """Columns of a row, with what is to be said of them; ``known`` are those of rows before too: a
    row may leave out its end."""
    used = caption_columns(columns) if captions else ()
    number = re.search(r"\d+", used[0]) if used else None
    late = used[:1] if number and int(number[0]) > 1 else ()
    problems = [
        (tuple(unused_caption_columns(columns)) if captions else (), _CAPTIONS),
        (late, _FIRST),
        (unused_place_columns(known, parts=parts), _PLACES if parts else _PARTS),
    ]
    return [(names, problem) for names, problem in problems if names]
