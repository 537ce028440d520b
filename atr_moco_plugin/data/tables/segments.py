"""Columns that say which part of a file a row is about."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from atr_moco_plugin.errors import InputError

_STARTS = ("start", "start_time", "start_seconds", "start_sec", "start_s", "begin", "onset")
_ENDS = ("end", "end_time", "end_seconds", "end_sec", "end_s", "stop")
_LENGTHS = ("duration", "duration_seconds", "duration_sec", "duration_s")
_PLACES = frozenset({"start", "starts", "begin", "onset", "offset", "end", "stop"})


def names_places(columns: tuple[str, ...]) -> bool:
    """Whether a table with these columns may say of a place in a file."""
    return bool(_roles(columns)[3])


def left_places(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that speak of a place in a file and that :func:`segment_of` does not read, such as
    ``start_ms``. Beside a ``youtube_id`` they may be places in the video."""
    starts, ends, _, places = _roles(columns)
    if "youtube_id" in columns:
        return ()
    return tuple(name for name in places if name not in starts + (ends if starts else ()))


def segment_of(row: Mapping[str, object], where: str) -> tuple[float, float] | None:
    """Start and end in seconds of the part of its file that a row is about.

    The start is in ``start`` (or with ``_time``, ``_seconds``, ``_sec``, ``_s`` behind it),
    ``begin`` or ``onset``; the end in ``end`` (likewise) or ``stop``, beside ``onset`` also in
    ``offset``, or it follows from ``duration`` (``_seconds``, ``_sec``, ``_s``). Beside a
    duration and without another start, ``offset`` is the start. A duration alone says nothing.

    Args:
        row: by column name in lower case.
        where: of the row, for messages.

    Returns:
        ``None`` where the row names no part, or not both its ends.

    Raises:
        ValueError: if a value is no number of seconds, or the end is not after the start.
    """
    starts, ends, lengths, _ = _roles(tuple(row))
    start, end = _seconds(row, starts, where), _seconds(row, ends, where)
    if start is None:
        return None
    if end is None:
        length = _seconds(row, lengths, where)
        if length is None:
            return None
        end = start + length
    if not 0 <= start < end < math.inf:
        raise InputError(
            f"{where} has a part from {start:g} s to {end:g} s, which must be in order and not "
            f"begin before 0; correct {starts[0]}, or rename it if it is no place in the file"
        )
    return start, end


def starts_of(row: Mapping[str, object]) -> str:
    """What a row without a :func:`segment_of` says of a place in its file, in words; empty if
    nothing. Rows of one clip agree in it."""
    columns = _roles(tuple(row))[3]
    said = [(name, row[name]) for name in columns if _filled(row[name])]
    return ", ".join(f"{name} {plain_number(value)[:40]}" for name, value in said)


def fragment(segment: tuple[float, float] | None) -> str:
    """The part as it is written behind a name: ``#t=30,40`` as in W3C Media Fragments."""
    return "" if segment is None else "#t=" + ",".join(map(plain_number, segment))


def plain_number(value: object) -> str:
    """A number without needless digits (``30``, ``1.5``), or other text as it is."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value).strip()
    return str(int(number)) if number.is_integer() else repr(number)


@lru_cache(maxsize=1024)
def _roles(columns: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The columns of the start, the end and the length, and all that speak of a place."""
    starts = tuple(name for name in _STARTS if name in columns)
    ends = tuple(name for name in _ENDS if name in columns)
    lengths = tuple(name for name in _LENGTHS if name in columns)
    if "offset" in columns:
        if "onset" in columns:
            ends += ("offset",)
        elif lengths and not starts:
            starts = ("offset",)
    places = tuple(name for name in columns if _PLACES & set(re.split(r"[^a-z]+", name)))
    return starts, ends, lengths, places


def _seconds(row: Mapping[str, object], columns: tuple[str, ...], where: str) -> float | None:
    """The seconds in the columns, which agree; ``None`` where they are empty."""
    found: dict[float, str] = {}
    for name in columns:
        value = row[name]
        if not _filled(value):
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(str(value))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            shown = " ".join(str(value)[:40].split())
            raise InputError(
                f"{where}: {name} is {shown!r}, not a number of seconds such as 4.5 (with a point, "
                "without minutes); correct it, or rename the column if it is no place in the file"
            )
        found[number] = name
    if len(found) > 1:
        (one, first), (two, second), *_ = found.items()
        raise InputError(
            f"{where}: {first} is {one:g} and {second} is {two:g}; keep one of the two columns"
        )
    return next(iter(found), None)


def _filled(value: object) -> bool:
    return value is not None and value != "" and not (isinstance(value, str) and value.isspace())
