"""Ask an index in a folder."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank, BankInfo, check_alpha, refuse_no_bank
from atr_moco_plugin.search.checks import OFF, check_queries, check_rows
from atr_moco_plugin.search.local import banks, catalog
from atr_moco_plugin.search.local.faults import told
from atr_moco_plugin.search.local.products import (
    all_cosines,
    best_of_each,
    best_rows,
    exact_cosines,
)
from atr_moco_plugin.search.local.snapshot import Snapshot, mask, stretches
from atr_moco_plugin.search.local.vectors import vector_file
from atr_moco_plugin.search.store import (
    Counts,
    Embedded,
    Filter,
    IndexInfo,
    Recording,
    RecordingScores,
    ReplacedIndexError,
    WindowHit,
)

StoreT = TypeVar("StoreT", bound="LocalReader")


class LocalReader:
    """An index in a folder, opened for reading: a :class:`~atr_moco_plugin.search.store.Store`.

    Calls from several threads take turns. What a writer does meanwhile is seen at the next call,
    and so is an index of the same model that was made anew in the folder.

    Args:
        folder: of the index.

    Raises:
        InputError: where there is no index, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.RLock()
        self._cached: Snapshot | None = None
        self._offsets: tuple[Snapshot, NDArray[np.float32]] | None = None
        with told(folder):
            self._connect()
            try:
                self._info = catalog.read_state(self._connection, folder).info
            except BaseException:
                self._connection.close()
                raise

    def _connect(self) -> None:
        self._connection, self._frozen = catalog.connect_reader(self._folder)
        self._file = self._file_now()

    def _file_now(self) -> tuple[int, ...]:
        """Which file it is; where nobody is taken to change it, also whether somebody has."""
        found = os.stat(self._folder / catalog.FILE)
        wal = (self._folder / f"{catalog.FILE}-wal").exists()
        same = (found.st_dev, found.st_ino)
        return (*same, found.st_size, found.st_mtime_ns, wal) if self._frozen else same

    @property
    def info(self) -> IndexInfo:
        """The model and the windows."""
        return self._info

    def __enter__(self: StoreT) -> StoreT:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        with self._turn:
            self._cached = self._offsets = None
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The index as of one moment."""
        with self._turn, told(self._folder):
            if self._file_now() != self._file:
                self._reopen()
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def _reopen(self) -> None:
        self._connection.close()
        self._cached = None
        self._connect()
        info = catalog.read_state(self._connection, self._folder).info
        if replace(info, model=self._info.model) != self._info:
            self._file = ()  # the next answer looks again, and is refused as this one
            raise ReplacedIndexError(self._folder)

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[Snapshot, sqlite3.Connection]]:
        with self._transaction() as connection:
            state = catalog.read_state(connection, self._folder)
            while self._cached is None or self._cached.state != state:
                self._cached = None
                try:
                    self._cached = Snapshot.read(connection, self._folder, state)
                except FileNotFoundError:
                    # A writer may have moved on to the next file since the transaction began.
                    connection.execute("COMMIT")
                    connection.execute("BEGIN")
                    before, state = state, catalog.read_state(connection, self._folder)
                    if before.vectors == state.vectors:
                        path = vector_file(self._folder, state.vectors)
                        raise InputError(
                            f"{path} is missing, and {catalog.FILE} beside it counts on it: bring "
                            "it back, or make the index anew."
                        ) from None
            yield self._cached, connection

    def counts(self) -> Counts:
        """What is in it."""
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT sum(windows > 0), sum(windows), sum(seconds * (windows > 0)),"
                " sum(windows = 0) FROM recordings"
            ).fetchone()
        recordings, windows, seconds, broken = (x or 0 for x in found)
        return Counts(recordings, windows, float(seconds), broken)

    def recordings(self) -> Iterator[Recording]:
        """All recordings as of now, broken ones too, by path and member as bytes."""
        # A connection of its own sees one moment, whatever is written before the last is read.
        with told(self._folder):
            connection, _ = catalog.connect_reader(self._folder)
            try:
                for columns in connection.execute(
                    f"SELECT {catalog.COLUMNS} FROM recordings ORDER BY path, member"
                ):
                    yield catalog.recording_of(columns)
            finally:
                connection.close()

    def put(self, embedded: Sequence[Embedded]) -> None:
        """Not of an index that is opened for reading."""
        raise ValueError(f"{self._folder} is opened for reading")

    def touch(self, times: Mapping[tuple[str, str], int]) -> None:
        """Not of an index that is opened for reading."""
        raise ValueError(f"{self._folder} is opened for reading")

    def remove(self, keys: Sequence[tuple[str, str]]) -> None:
        """Not of an index that is opened for reading."""
        raise ValueError(f"{self._folder} is opened for reading")

    def set_bank(self, bank: Bank | None, *, progress: bool = False) -> None:
        """Not of an index that is opened for reading."""
        raise ValueError(f"{self._folder} is opened for reading")

    def bank(self) -> BankInfo | None:
        """The bank that searches may be corrected with; None where there is none."""
        with self._transaction() as connection:
            return banks.read_info(connection)

    def finish(self, *, progress: bool = False) -> None:
        """Nothing: an exact search needs no more than what :meth:`put` writes."""

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        only: Filter | None = None,
        alpha: float = 0.0,
    ) -> list[list[WindowHit]]:
        """The k windows with the highest score for each of ``[Q, d]`` queries, best first; ties by
        number of the window."""
        queries = check_queries(queries, self._info.embed_dim, k)
        with self._snapshot() as (now, connection):
            live, less = now.live, self._less(connection, now, alpha)
            if only is not None:
                taken = self._taken(connection, only)
                live = mask(now.state.rows, now.first_rows[taken], now.counts[taken])
            hits = []
            for query in queries:
                rows, scores = self._best(connection, now, query, k, live, alpha, less)
                check_rows(now.matrix, rows)
                cosines = scores if less is None else exact_cosines(now.matrix, rows, query)
                hits.append(catalog.windows(connection, now.numbers(rows), scores, cosines))
            return hits

    def _less(
        self, connection: sqlite3.Connection, now: Snapshot, alpha: float
    ) -> NDArray[np.float32] | None:
        """``[N]`` what a correction takes off each row; None for nothing."""
        if not check_alpha(alpha):
            return None
        if self._offsets is None or self._offsets[0] is not now:
            if banks.read_info(connection) is None:
                refuse_no_bank(self._folder)
            self._offsets = (now, banks.read_offsets(connection, now.state.rows, self._folder))
        return np.float32(alpha) * self._offsets[1]

    def _best(
        self,
        connection: sqlite3.Connection,
        now: Snapshot,
        query: NDArray[np.float32],
        k: int,
        live: NDArray[np.bool_] | None,
        alpha: float,
        less: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best of the live rows and their scores, which are the cosines, less what an alpha
        takes off. Another engine has another way."""
        return best_rows(now.matrix, query, k, live, less)

    def recording_scores(
        self, queries: NDArray[np.float32], only: Filter | None = None, alpha: float = 0.0
    ) -> RecordingScores:
        """The best window of every recording, for each of ``[Q, d]`` queries; recordings in the
        order of :meth:`recordings`, without broken ones."""
        queries = check_queries(queries, self._info.embed_dim)
        with self._snapshot() as (now, connection):
            taken = np.arange(len(now.ids)) if only is None else self._taken(connection, only)
            order = taken[np.argsort(now.first_rows[taken])]
            rows = stretches(now.first_rows[order], now.counts[order])
            everything = len(rows) == len(now.matrix)
            products = all_cosines(now.matrix, queries, None if everything else rows)
            less = self._less(connection, now, alpha)
            counts = now.counts[order]
            starts = np.cumsum(counts) - counts
            scores, cosines = np.empty((2, len(queries), len(now.ids)), np.float32)
            windows = np.empty((len(queries), len(now.ids)), np.int64)
            for q, row in enumerate(products):
                if not (np.abs(row) <= 1 + OFF).all():
                    raise FloatingPointError("a cosine is none")
                own = row if less is None else row - less[rows]
                scores[q, order], into = best_of_each(own, counts)
                cosines[q, order] = row[starts + into]
                windows[q, order] = now.ids[order] + into
            return RecordingScores(scores[:, taken], windows[:, taken], cosines[:, taken])

    def windows(self, numbers: Sequence[int]) -> list[WindowHit]:
        """Windows by their numbers, with a score and a cosine of 0.

        Raises:
            NoWindowError: for a number that is not in the index.
        """
        with self._transaction() as connection:
            nothing = np.zeros(len(numbers), np.float32)
            return catalog.windows(connection, numbers, nothing, nothing)

    def _taken(self, connection: sqlite3.Connection, only: Filter) -> NDArray[np.int64]:
        """Which recordings of the snapshot a filter takes, ascending."""
        found = connection.execute(
            "SELECT path, member, seconds FROM recordings WHERE windows > 0 ORDER BY path, member"
        )
        text = catalog.as_text
        flags = (only.takes_any(text(path), text(member), n) for path, member, n in found)
        return np.flatnonzero(np.fromiter(flags, np.bool_))
