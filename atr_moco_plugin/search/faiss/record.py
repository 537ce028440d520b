"""What the SQLite file of an index says of its file of FAISS.

The file is written first and named after that, in one transaction: a writer that is killed on the
way leaves a file that nobody asks, and the next writer removes it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from atr_moco_plugin.search.local import catalog


class Record(NamedTuple):
    """The file of FAISS that counts.

    Attributes:
        build: N of the file ``vectors-N.faiss``; 0 where there is none yet.
        covered: windows with lower numbers are in it, as far as they are still there.
        size: its bytes.
    """

    build: int = 0
    covered: int = 0
    size: int = 0


def faiss_file(folder: Path, build: int) -> Path:
    """The N-th file of FAISS of an index."""
    return folder / f"vectors-{build}.faiss"


def faiss_files(folder: Path) -> list[Path]:
    """All of them."""
    return sorted(folder.glob("vectors-*.faiss"))


def has_record(folder: Path) -> bool:
    """Whether the index in a folder, if there is one, is searched by FAISS."""
    if not (folder / catalog.FILE).is_file():
        return False
    connection, _ = catalog.connect_reader(folder)
    try:
        return read_record(connection) is not None
    finally:
        connection.close()


def read_record(connection: sqlite3.Connection) -> Record | None:
    """The record; None where the index is searched exactly."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'faiss'")
    if not found.fetchone()[0]:
        return None
    return Record(*connection.execute("SELECT build, covered, size FROM faiss").fetchone())


def write_record(connection: sqlite3.Connection, record: Record | None) -> None:
    """Set or, with None, remove the record; a part of a change."""
    connection.execute("DROP TABLE IF EXISTS faiss")
    if record is not None:
        connection.execute("CREATE TABLE faiss (build INTEGER, covered INTEGER, size INTEGER)")
        connection.execute("INSERT INTO faiss VALUES (?, ?, ?)", record)
