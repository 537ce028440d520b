"""Columns that name a part of a file: its start, end and duration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.errors import InputError

_PLACE = re.compile(r"starts|(start|begin|onset|offset|end|stop)(time|seconds|secs?|ms)?")


def name_places(columns: tuple[str, ...]) -> bool:
    """Whether any of the columns names a place in a file, by its name."""
    return bool(_roles(columns).places)


def unused_place_columns(columns: tuple[str, ...], *, parts: bool = True) -> tuple[str, ...]:
    """Columns that name a place in a file and that :func:`segment_of` does not read, such as
    ``start_ms`` or a ``start`` without an end. Beside a ``youtube_id`` there are none: they may be
    places in the video.

    Args:
        columns: names of columns.
        parts: whether :func:`segment_of` is asked at all.
    """
    roles = _roles(columns)
    if column_names.VIDEO in columns:
        return ()
    both = parts and roles.starts and (roles.ends or roles.durations)
    read = roles.starts + roles.ends if both else ()
    return tuple(name for name in roles.places if name not in read)


def segment_of(row: Mapping[str, object], where: str) -> tuple[float, float] | None:
    """Start and end in seconds of the part of its file that a row is about.

    For example the columns ``start`` and ``end``, or ``start`` and ``duration``; all names are in
    :mod:`~.column_names`. ``offset`` is the end beside ``onset``, and the start beside a duration
    and no other start. A duration alone says nothing. Beside a ``youtube_id`` a place is one in the
    video, of which the file is the cut.

    Args:
        row: by column name in lower case.
        where: the file and the row, for messages.

    Returns:
        ``None`` where the row names no part, or not both its ends.

    Raises:
        InputError: if a value is no number of seconds, or the end is not after the start.
    """
    if _filled(row.get(column_names.VIDEO)):
        return None
    roles = _roles(tuple(row))
    start, end = _seconds(row, roles.starts, where), _seconds(row, roles.ends, where)
    if start is None:
        return None
    if end is None:
        length = _seconds(row, roles.durations, where)
        if length is None:
            return None
        end = start + length
    if not 0 <= start < end < math.inf:
        raise InputError(
            f"{where} has a part from {start:g} s to {end:g} s, which must be in order and not "
            f"begin before 0; correct {roles.starts[0]}, or rename it if it is no place in the file"
        )
    return start, end


def place_note(row: Mapping[str, object]) -> str:
    """The place in its file that a row without a :func:`segment_of` names, in words; empty if it
    names none. Rows of one clip agree in it."""
    said = [(name, row[name]) for name in _roles(tuple(row)).places if _filled(row[name])]
    return ", ".join(f"{name} {plain_number(value)[:40]}" for name, value in said)


def half_place(row: Mapping[str, object]) -> tuple[str, ...]:
    """The columns in which a row names a place in its file, where :func:`segment_of` finds no part:
    the start or the end is missing. A row with a ``youtube_id`` has none: its file is the cut."""
    roles = _roles(tuple(row))
    if not roles.places or _filled(row.get(column_names.VIDEO)):
        return ()
    filled = {name for name in row if _filled(row[name])}
    if filled.intersection(roles.starts) and filled.intersection(roles.ends + roles.durations):
        return ()
    return tuple(name for name in roles.places if name in filled)


def fragment(segment: tuple[float, float] | None) -> str:
    """The part in the notation of W3C Media Fragments, to follow a name: ``#t=30,40``."""
    return "" if segment is None else "#t=" + ",".join(map(plain_number, segment))


def plain_number(value: object) -> str:
    """A number without needless digits (``30``, ``1.5``), or other text as it is."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value).strip()
    return str(int(number)) if number.is_integer() else repr(number)


class _Roles(NamedTuple):
    """The columns of a table by what they say; ``places`` are all that name a place in a file."""

    starts: tuple[str, ...]
    ends: tuple[str, ...]
    durations: tuple[str, ...]
    places: tuple[str, ...]


@lru_cache(maxsize=1024)
def _roles(columns: tuple[str, ...]) -> _Roles:
    starts = tuple(name for name in column_names.STARTS if name in columns)
    ends = tuple(name for name in column_names.ENDS if name in columns)
    durations = tuple(name for name in column_names.DURATIONS if name in columns)
    if "offset" in columns:
        if "onset" in columns:
            ends += ("offset",)
        elif durations and not starts:
            starts = ("offset",)
    places = tuple(name for name in columns if _names_place(name))
    return _Roles(starts, ends, durations, places)


def _names_place(name: str) -> bool:
    return any(map(_PLACE.fullmatch, re.split(r"[^a-z]+", name)))


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
