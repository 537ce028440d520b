"""The bank of an index in a folder and the offset of each window: two tables of its SQLite file.

They are made with the first bank: an index without one is as it was before there were banks. What
is written here is a part of the change that puts the windows, so that a window without its offset
is never read, unless a version that knows no banks has put it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank, BankInfo
from atr_moco_plugin.search.checks import OFF
from atr_moco_plugin.search.local.snapshot import stretches

# Offsets of a recording's windows stand under its id. The trigger also serves a writer that knows
# nothing of them.
_SCHEMA = (
    "CREATE TABLE bank (sentences INTEGER, neighbours INTEGER, digest TEXT, embeddings BLOB)",
    "CREATE TABLE offsets (id INTEGER PRIMARY KEY, offsets BLOB NOT NULL)",
    "CREATE TRIGGER forget_offsets AFTER DELETE ON recordings"
    " BEGIN DELETE FROM offsets WHERE id = OLD.id; END",
)
_GONE = (
    "DROP TRIGGER IF EXISTS forget_offsets",
    "DROP TABLE IF EXISTS offsets",
    "DROP TABLE IF EXISTS bank",
)
_DTYPE = np.dtype("<f4")
_AT_ONCE = 16_384
"""Windows whose vectors are read at once, where no recording alone has more."""

Stretch = tuple[int, int, int]
"""Id of a recording, its first row, and how many windows it has."""


def read_info(connection: sqlite3.Connection) -> BankInfo | None:
    """What the index says of its bank; None where it has none."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'bank'")
    if not found.fetchone()[0]:
        return None
    columns = connection.execute("SELECT sentences, neighbours, digest FROM bank").fetchone()
    return BankInfo(*columns)


def read_bank(connection: sqlite3.Connection, width: int) -> Bank | None:
    """The bank itself; None where there is none.

    Raises:
        sqlite3.DatabaseError: where it is damaged.
    """
    info = read_info(connection)
    if info is None:
        return None
    (blob,) = connection.execute("SELECT embeddings FROM bank").fetchone()
    if not isinstance(blob, bytes) or len(blob) != info.sentences * width * _DTYPE.itemsize:
        raise sqlite3.DatabaseError("the bank is not whole")
    embeddings = np.frombuffer(blob, _DTYPE).reshape(-1, width).astype(np.float32)
    if not (np.abs(np.linalg.norm(embeddings, axis=1) - 1) <= OFF).all():
        raise sqlite3.DatabaseError("the bank holds what is no embedding")
    return Bank(info, embeddings)


def write_bank(connection: sqlite3.Connection, bank: Bank | None) -> None:
    """Set or, with None, remove the bank; there are no offsets then. A part of a change."""
    for statement in _GONE + (_SCHEMA if bank is not None else ()):
        connection.execute(statement)
    if bank is not None:
        blob = np.ascontiguousarray(bank.embeddings, _DTYPE).tobytes()
        connection.execute("INSERT INTO bank VALUES (?, ?, ?, ?)", (*bank.info, blob))


def write_offsets(
    connection: sqlite3.Connection,
    bank: Bank,
    windows: Sequence[tuple[int, int]],
    vectors: NDArray[np.float16],
) -> None:
    """Write the offsets of some recordings; a part of a change.

    Args:
        connection: of the writer.
        bank: of the index.
        windows: id of each recording and how many windows it has; those without any are passed
            over.
        vectors: ``[N, d]`` of all their windows, as they stand in the file.
    """
    offsets = bank.offsets(vectors).astype(_DTYPE)
    rows, start = [], 0
    for number, count in windows:
        if count:
            rows.append((number, offsets[start : start + count].tobytes()))
        start += count
    connection.executemany("INSERT INTO offsets VALUES (?, ?)", rows)


def without_offsets(connection: sqlite3.Connection) -> list[Stretch]:
    """Recordings with windows of which the bank has no offsets, in the order of their rows."""
    return connection.execute(
        "SELECT id, first_row, windows FROM recordings WHERE windows > 0"
        " AND id NOT IN (SELECT id FROM offsets) ORDER BY first_row"
    ).fetchall()


def in_parts(recordings: Sequence[Stretch]) -> Iterator[Sequence[Stretch]]:
    """Cut into parts whose vectors are read at once."""
    start = size = 0
    for end, (_, _, count) in enumerate(recordings):
        if end > start and size + count > _AT_ONCE:
            yield recordings[start:end]
            start, size = end, 0
        size += count
    if recordings:
        yield recordings[start:]


def read_offsets(connection: sqlite3.Connection, rows: int, folder: Path) -> NDArray[np.float32]:
    """``[rows]`` the offset of each row of the vectors; 0 for rows of removed recordings.

    Raises:
        InputError: where a recording has none.
        sqlite3.DatabaseError: where they are damaged.
    """
    found = connection.execute(
        "SELECT first_row, windows, offsets FROM recordings LEFT JOIN offsets USING (id)"
        " WHERE windows > 0"
    ).fetchall()
    bare = sum(blob is None for _, _, blob in found)
    if bare:
        raise InputError(
            f"{folder} has no correction yet for {bare:,} of {len(found):,} recordings, which an "
            "earlier version has put: run `index` again with this one."
        )
    places = np.array([place[:2] for place in found], np.int64).reshape(-1, 2)
    try:
        whole = all(len(blob) == count * _DTYPE.itemsize for _, count, blob in found)
        values = np.frombuffer(b"".join(blob for _, _, blob in found), _DTYPE) if whole else None
    except TypeError:
        values = None
    if values is None or not (np.abs(values) <= 1 + OFF).all():
        raise sqlite3.DatabaseError("offsets of windows are not whole")
    offsets = np.zeros(rows, np.float32)
    offsets[stretches(*places.T)] = values
    return offsets
