"""An index in PostgreSQL: one process writes, many on many machines read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector

from atr_moco_plugin.search.bank import ROUGH_ALPHA, Bank, BankInfo, check_alpha
from atr_moco_plugin.search.checks import check_bank, check_embedded, check_queries
from atr_moco_plugin.search.postgres import banks
from atr_moco_plugin.search.postgres.address import Address
from atr_moco_plugin.search.postgres.connection import Connection, connect, in_words
from atr_moco_plugin.search.postgres.questions import Questions, has_hnsw
from atr_moco_plugin.search.postgres.rows import RECORDING, digests, hit_of, recording_of, row_of
from atr_moco_plugin.search.postgres.schema import kind_of
from atr_moco_plugin.search.store import (
    Counts,
    Embedded,
    Filter,
    IndexInfo,
    NoWindowError,
    Recording,
    RecordingScores,
    ReplacedIndexError,
    WindowHit,
)

T = TypeVar("T")
Cursor = psycopg.Cursor[Any]

MOST_APPROXIMATE = 1000
"""Most windows that pgvector's HNSW index finds at once."""
CORRECTED = 8
"""Least windows that it finds for each one asked for where scores are corrected: it knows cosines
alone."""
QUERIES_AT_ONCE = 8
"""Queries that one pass over the windows scores."""


class PostgresStore:
    """An index in PostgreSQL with pgvector, see :class:`~atr_moco_plugin.search.store.Store`.

    Searching is exact unless someone makes an HNSW index (docs/engines.md has the line); searches
    with a filter stay exact then, and scores are always computed from what is stored: float16 where
    the server's pgvector has ``halfvec``, float32 elsewhere. Threads may share a store.
    """

    def __init__(
        self, address: Address, connection: Connection, info: IndexInfo, *, write: bool, exact: bool
    ) -> None:
        self._address = address
        self._connection = _of_one_moment(connection)
        self._info = info
        self._write = write
        self._exact = exact
        self._lock = threading.RLock()
        self._kind = kind_of(connection)
        self._bank: Bank | None = None
        if write:
            with in_words(address):
                self._bank = self._ask(lambda cursor: banks.read_bank(cursor, address))

    @property
    def info(self) -> IndexInfo:
        """The model and the windows."""
        return self._info

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection, which lets the next writer in."""
        self._connection.close()

    def counts(self) -> Counts:
        """What is in it."""

        def ask(cursor: Cursor) -> Counts:
            cursor.execute(
                "SELECT count(*) FILTER (WHERE problem = ''), (SELECT count(*) FROM windows), "
                "coalesce(sum(seconds) FILTER (WHERE problem = ''), 0), "
                "count(*) FILTER (WHERE problem <> '') FROM recordings"
            )
            return Counts(*cursor.fetchall()[0])

        return self._read(ask)

    def recordings(self) -> Iterator[Recording]:
        """All recordings, broken ones too, by path and member, as they are now."""
        # A connection of its own: it may be read while recordings are put.
        with in_words(self._address), connect(self._address) as connection:
            with connection.transaction(), connection.cursor(name="recordings") as cursor:
                cursor.itersize = 10_000
                cursor.execute(f"SELECT {RECORDING} FROM recordings r ORDER BY path, member")
                for row in cursor:
                    yield recording_of(row)

    def put(self, embedded: Sequence[Embedded]) -> None:
        """Add or replace recordings, all or none."""
        for one in embedded:
            check_embedded(one, self._info.embed_dim)
        last = {one.recording.key: one for one in embedded}
        with self._changing() as cursor:
            cursor.execute("DELETE FROM recordings WHERE key = ANY(%s)", [digests(last)])
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence('recordings', 'id')) "
                "FROM generate_series(1, %s)",
                [len(last)],
            )
            numbered = [(row[0], one) for row, one in zip(cursor, last.values(), strict=True)]
            with cursor.copy(
                "COPY recordings (id, key, path, member, name, size, mtime_ns, digest, seconds, "
                "problem) FROM STDIN (FORMAT BINARY)"
            ) as copy:
                types = "int8 bytea bytea bytea text int8 int8 text float8 bytea"
                copy.set_types(types.split())
                for number, one in numbered:
                    copy.write_row((number, *row_of(one.recording)))
            with cursor.copy(
                "COPY windows (recording, start, stop, embedding) FROM STDIN (FORMAT BINARY)"
            ) as copy:
                copy.set_types(["int8", "float8", "float8", self._kind])
                for number, one in numbered:
                    for (start, stop), row in zip(one.spans, one.embeddings, strict=True):
                        vector = HalfVector(row) if self._kind == "halfvec" else row
                        copy.write_row((number, float(start), float(stop), vector))
            if self._bank is not None:
                banks.add_offsets(cursor, self._bank, [number for number, _ in numbered])

    def touch(self, times: Mapping[tuple[str, str], int]) -> None:
        """Set ``mtime_ns`` of recordings by path and member, all or none."""
        with self._changing() as cursor:
            cursor.execute(
                "UPDATE recordings SET mtime_ns = t.mtime_ns FROM "
                "unnest(%s::bytea[], %s::bigint[]) AS t (key, mtime_ns) "
                "WHERE recordings.key = t.key",
                [digests(times), list(times.values())],
            )

    def remove(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove recordings by path and member, all or none; unknown ones are passed over."""
        with self._changing() as cursor:
            cursor.execute("DELETE FROM recordings WHERE key = ANY(%s)", [digests(keys)])

    def finish(self, *, progress: bool = False) -> None:
        """Have the server forget what was removed, and count what is there."""
        tables = "recordings, windows"
        if self._bank is not None:
            with self._changing() as cursor:
                banks.add_offsets(cursor, self._bank, progress=progress)
            tables += ", offsets"
        with self._lock, in_words(self._address):
            self._connection.execute(f"VACUUM (ANALYZE) {tables}")

    def bank(self) -> BankInfo | None:
        """The bank that searches may be corrected with; None where there is none."""
        return self._read(lambda cursor: banks.read_info(cursor, self._address))

    def set_bank(self, bank: Bank | None, *, progress: bool = False) -> None:
        """Keep another bank, or none, and the offset of every window, all or nothing."""
        check_bank(bank, self._info.embed_dim)
        with self._changing() as cursor:
            banks.write_bank(cursor, self._address, bank)
            if bank is not None:
                banks.add_offsets(cursor, bank, progress=progress)
        self._bank = bank

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        only: Filter | None = None,
        alpha: float = 0.0,
    ) -> list[list[WindowHit]]:
        """The k windows with the highest score for each query, best first."""
        queries = check_queries(queries, self._info.embed_dim, k)
        questions = Questions(only, check_alpha(alpha))
        most = MOST_APPROXIMATE // (CORRECTED if alpha else 1)
        breadth = MOST_APPROXIMATE if alpha else max(100, min(2 * k, MOST_APPROXIMATE))

        def ask(cursor: Cursor) -> list[list[WindowHit]]:
            banks.check_bank(cursor, self._address, alpha)
            # An index that filters only what it has found would miss what is asked for.
            filtered = only is not None and only != Filter()
            exactly = self._exact or filtered or k > most or alpha > ROUGH_ALPHA
            by_index = not exactly and has_hnsw(cursor)
            found = []
            for query in queries:
                rows: list[tuple[Any, ...]] = []
                if by_index:
                    cursor.execute(f"SET LOCAL hnsw.ef_search = {breadth}")
                    asked = questions.approximate(query, k, breadth if alpha else k, self._kind)
                    rows = cursor.execute(*asked).fetchall()
                if len(rows) < k:
                    rows = cursor.execute(*questions.exact(query, k)).fetchall()
                banks.check_scores([row[1] for row in rows[:1]], self._address)
                found.append([hit_of(row, alpha) for row in rows])
            return found

        return self._read(ask)

    def recording_scores(
        self, queries: NDArray[np.float32], only: Filter | None = None, alpha: float = 0.0
    ) -> RecordingScores:
        """The best window of every recording, for each query; always exact."""
        queries = check_queries(queries, self._info.embed_dim)
        questions = Questions(only, check_alpha(alpha))

        def ask(cursor: Cursor) -> list[NDArray[np.float64]]:
            banks.check_bank(cursor, self._address, alpha)
            parts: list[NDArray[np.float64]] = []
            for start in range(0, len(queries), QUERIES_AT_ONCE):
                some = list(queries[start : start + QUERIES_AT_ONCE])
                cursor.execute(*questions.best_of_each(some))
                rows = np.array(cursor.fetchall(), dtype=np.float64).reshape(-1, len(some), 3)
                parts.append(rows.transpose(1, 0, 2))
            return parts

        parts = self._read(ask)
        every = np.concatenate(parts) if parts else np.empty((0, 0, 3))
        scores, numbers, offsets = every.transpose(2, 0, 1)
        banks.check_scores(scores, self._address)
        windows = -numbers.astype(np.int64)
        cosines = scores + alpha * offsets
        return RecordingScores(scores.astype(np.float32), windows, cosines.astype(np.float32))

    def windows(self, numbers: Sequence[int]) -> list[WindowHit]:
        """Windows by their numbers, with a score and a cosine of 0."""

        def ask(cursor: Cursor) -> dict[int, WindowHit]:
            cursor.execute(
                f"SELECT w.number, 0, 0, w.start, w.stop, {RECORDING} FROM windows w "
                "JOIN recordings r ON r.id = w.recording WHERE w.number = ANY(%s)",
                [[int(number) for number in numbers]],
            )
            return {row[0]: hit_of(row) for row in cursor}

        found = self._read(ask)
        missing = [int(number) for number in numbers if int(number) not in found]
        if missing:
            raise NoWindowError(missing[0])
        return [found[int(number)] for number in numbers]

    def _read(self, ask: Callable[[Cursor], T]) -> T:
        """Ask the server. A reader whose connection was lost meanwhile gets another."""
        with self._lock, in_words(self._address):
            try:
                return self._ask(ask)
            except psycopg.OperationalError:
                # A writer has lost its lock with its connection.
                if self._write or not self._connection.closed:
                    raise
            self._connection = _of_one_moment(connect(self._address))
            return self._ask(ask)

    def _ask(self, ask: Callable[[Cursor], T]) -> T:
        with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
            cursor.execute("SELECT fingerprint, window_seconds, hop_seconds FROM info")
            own = self._info
            if cursor.fetchone() != (own.fingerprint, own.window_seconds, own.hop_seconds):
                raise ReplacedIndexError(self._address)
            return ask(cursor)

    @contextmanager
    def _changing(self) -> Iterator[Cursor]:
        """A transaction that is there whole or not at all."""
        if not self._write:
            raise ValueError(f"{self._address} is opened for reading")
        with self._lock, in_words(self._address):
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor


def _of_one_moment(connection: Connection) -> Connection:
    """What a transaction asks sees one moment, also where several queries follow each other."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection
