"""The SQLite file of an index: which recordings it has, and which rows of vectors are theirs."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.names import name_from_bytes, name_to_bytes
from atr_moco_plugin.search.store import IndexInfo, NoWindowError, Recording, WindowHit

FILE = "index.sqlite"
FORMAT = 1

# Paths and what names them are bytes, since a file's name need not be UTF-8. The id of a recording
# is the number of its first window; numbers are never given twice. `spans` is last, so that a scan
# need not read it.
_SCHEMA = (
    "CREATE TABLE state (format INTEGER, info TEXT, version INTEGER, vectors INTEGER,"
    " rows INTEGER, live INTEGER, next INTEGER)",
    "CREATE TABLE recordings (id INTEGER PRIMARY KEY, path BLOB NOT NULL, member BLOB NOT NULL,"
    " size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL,"
    " seconds REAL NOT NULL, problem BLOB NOT NULL, first_row INTEGER NOT NULL,"
    " windows INTEGER NOT NULL, spans BLOB NOT NULL)",
    "CREATE UNIQUE INDEX by_name ON recordings (path, member)",
)
COLUMNS = "path, member, size, mtime_ns, digest, seconds, problem"
"""Of a recording; see :func:`recording_of`."""
_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class State:
    """What an index says of itself.

    Attributes:
        info: model and windows.
        version: one more with every change.
        vectors: N of the file ``vectors-N.f16``.
        rows: of that file that are written, those of removed recordings too.
        live: rows of recordings that are there.
        next: number of the next window.
    """

    info: IndexInfo
    version: int
    vectors: int
    rows: int
    live: int
    next: int


def connect_writer(folder: Path) -> sqlite3.Connection:
    """Open the file for its one writer, made where it is missing."""
    connection = _connect(folder, "rwc")
    connection.execute("PRAGMA journal_mode = WAL")
    # A file of vectors is removed after the change that leaves it: that must not be undone by a
    # power cut.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def connect_reader(folder: Path) -> tuple[sqlite3.Connection, bool]:
    """Open the file for reading.

    Returns:
        the connection, and whether the file is taken for one that nobody changes. That is so where
        the folder cannot be written and no writer is at work: SQLite then makes no file for what
        readers and the writer share.
    """
    connection = _connect(folder, "ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection, False
    except sqlite3.OperationalError as ex:
        connection.close()
        if "locked" in str(ex):
            raise
        wal = folder / f"{FILE}-wal"
        if wal.exists() and wal.stat().st_size:
            raise InputError(
                f"{folder} holds changes that its last writer did not finish, in {wal.name}, and "
                "the folder cannot be written: open the index once where it can be."
            ) from None
    connection = _connect(folder, "ro&immutable=1")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection, True


def _connect(folder: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(os.fsencode(folder / FILE))}?mode={mode}"
    return sqlite3.connect(
        address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


@contextmanager
def change(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes: all of it or, where anything is raised, nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def make(connection: sqlite3.Connection, info: IndexInfo) -> None:
    """The tables of an empty index; a part of a :func:`change`."""
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO state VALUES (?, ?, 0, 0, 0, 0, 0)", (FORMAT, json.dumps(asdict(info)))
    )


def is_made(connection: sqlite3.Connection) -> bool:
    """Whether there are tables."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'state'")
    return bool(found.fetchone()[0])


def read_state(connection: sqlite3.Connection, folder: Path) -> State:
    """What the index says of itself.

    Raises:
        InputError: where it says nothing, or was made by a later version.
    """
    names = "format, info, version, vectors, rows, live, next"
    sql = f"SELECT {names} FROM state"
    found = connection.execute(sql).fetchall() if is_made(connection) else []
    if not found:
        raise InputError(f"{folder} holds no index: fill it with `index` first.")
    form, text, *numbers = found[0]
    if form != FORMAT:
        raise InputError(
            f"{folder / FILE} is of format {form}, and this version reads format {FORMAT}: "
            "use the version that made it, or make the index anew."
        )
    try:
        info = IndexInfo(**json.loads(text))
    except (TypeError, ValueError):
        raise sqlite3.DatabaseError("model and windows are not to be read") from None
    return State(info, *numbers)


def update_state(connection: sqlite3.Connection, state: State) -> None:
    """Write the state, as of the next version; a part of a :func:`change`."""
    connection.execute(
        "UPDATE state SET version = version + 1, vectors = ?, rows = ?, live = ?, next = ?",
        (state.vectors, state.rows, state.live, state.next),
    )


def update_info(connection: sqlite3.Connection, info: IndexInfo) -> None:
    """Write model and windows; a part of a :func:`change`."""
    connection.execute(
        "UPDATE state SET version = version + 1, info = ?", (json.dumps(asdict(info)),)
    )


def as_text(name: Any) -> str:
    """A name from the bytes in the file.

    Raises:
        sqlite3.DatabaseError: where the file has something else.
    """
    try:
        return name_from_bytes(name)
    except AttributeError:
        raise sqlite3.DatabaseError("a name is not one") from None


def recording_of(columns: Sequence[Any]) -> Recording:
    """A recording from its columns.

    Raises:
        sqlite3.DatabaseError: where they are no recording's.
    """
    path, member, size, mtime_ns, digest, seconds, problem = columns
    return Recording(
        path=as_text(path),
        member=as_text(member),
        size=size,
        mtime_ns=mtime_ns,
        digest=digest,
        seconds=seconds,
        problem=as_text(problem),
    )


def columns_of(recording: Recording) -> tuple[object, ...]:
    """The columns of a recording."""
    return (
        name_to_bytes(recording.path),
        name_to_bytes(recording.member),
        recording.size,
        recording.mtime_ns,
        recording.digest,
        recording.seconds,
        name_to_bytes(recording.problem),
    )


def span_of(blob: bytes) -> tuple[float, float]:
    """Start and end of a window, from its 16 bytes.

    Raises:
        sqlite3.DatabaseError: where it is not there.
    """
    try:
        start, end = struct.unpack("<2d", blob)
    except (TypeError, struct.error):
        raise sqlite3.DatabaseError("times of windows are missing") from None
    return start, end


def windows(
    connection: sqlite3.Connection,
    numbers: Sequence[int] | NDArray[np.int64],
    scores: NDArray[np.float32],
    cosines: NDArray[np.float32],
) -> list[WindowHit]:
    """Windows by their numbers.

    Raises:
        NoWindowError: for a number that is not in the index.
    """
    hits = []
    values = zip(scores.tolist(), cosines.tolist(), strict=True)
    for number, own in zip(map(int, numbers), values, strict=True):
        # The id of a recording is the number of its first window.
        found = connection.execute(
            f"SELECT {COLUMNS}, id + windows, substr(spans, 1 + 16 * (? - id), 16) FROM recordings"
            " WHERE id <= ? ORDER BY id DESC LIMIT 1",
            (number, number) if abs(number) < 2**62 else (-1, -1),
        ).fetchone()
        if found is None or number >= found[-2]:
            raise NoWindowError(number)
        start, end = span_of(found[-1])
        hits.append(WindowHit(number, recording_of(found[:-2]), start, end, *own))
    return hits
