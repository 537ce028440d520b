"""Recordings and hits as rows of PostgreSQL, and filters as conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from atr_moco_plugin.data.tables.file_names import composed
from atr_moco_plugin.search.names import name_from_bytes, name_to_bytes
from atr_moco_plugin.search.postgres.patterns import regular_expression, searchable
from atr_moco_plugin.search.store import Filter, Recording, WindowHit

RECORDING = "r.path, r.member, r.size, r.mtime_ns, r.digest, r.seconds, r.problem"
"""The columns of :func:`recording_of`."""


def conditions(only: Filter | None) -> tuple[str, list[Any]]:
    """A ``WHERE`` that says what a filter says, and its values."""
    only = only or Filter()
    terms: list[tuple[str, Any]] = []
    if only.path is not None and "\0" in only.path:
        terms.append(("%s", False))  # no name has it, and PostgreSQL's text cannot
    elif only.path is not None:
        terms.append(
            ("normalize(r.name) ~ %s", regular_expression(searchable(composed(only.path))))
        )
    if only.min_seconds is not None:
        terms.append(("r.seconds >= %s", only.min_seconds))
    if only.max_seconds is not None:
        terms.append(("r.seconds <= %s", only.max_seconds))
    where = f"WHERE {' AND '.join(term for term, _ in terms)}" if terms else ""
    return where, [value for _, value in terms]


def digests(keys: Iterable[tuple[str, str]]) -> list[bytes]:
    """What names recordings in an index of the database, however long the names are."""
    # No path has a zero byte in it.
    return [
        hashlib.sha256(name_to_bytes(path) + b"\0" + name_to_bytes(member)).digest()
        for path, member in keys
    ]


def row_of(recording: Recording) -> tuple[Any, ...]:
    """A recording as a row, without its number."""
    return (
        digests([recording.key])[0],
        name_to_bytes(recording.path),
        name_to_bytes(recording.member),
        searchable(recording.name),
        recording.size,
        recording.mtime_ns,
        recording.digest,
        recording.seconds,
        name_to_bytes(recording.problem),
    )


def recording_of(row: tuple[Any, ...]) -> Recording:
    """A recording from the columns of :data:`RECORDING`."""
    path, member, size, mtime_ns, digest, seconds, problem = row
    return Recording(
        path=name_from_bytes(path),
        member=name_from_bytes(member),
        size=size,
        mtime_ns=mtime_ns,
        digest=digest,
        seconds=seconds,
        problem=name_from_bytes(problem),
    )


def hit_of(row: tuple[Any, ...], alpha: float = 0.0) -> WindowHit:
    """A hit from number, score, offset, start, end and the columns of :data:`RECORDING`."""
    number, score, offset, start, stop, *recording = row
    values = (float(np.float32(score)), float(np.float32(score + alpha * offset)))
    return WindowHit(number, recording_of(tuple(recording)), start, stop, *values)
