"""An index in a folder that FAISS searches: what it finds is scored from the vectors themselves."""

from __future__ import annotations

import sqlite3
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.search.bank import ROUGH_ALPHA
from atr_moco_plugin.search.faiss import ivf
from atr_moco_plugin.search.faiss.record import (
    Record,
    faiss_file,
    faiss_files,
    read_record,
    write_record,
)
from atr_moco_plugin.search.local import catalog
from atr_moco_plugin.search.local.faults import told
from atr_moco_plugin.search.local.products import best_rows, exact_scores
from atr_moco_plugin.search.local.reading import LocalReader
from atr_moco_plugin.search.local.snapshot import Snapshot
from atr_moco_plugin.search.local.vectors import sync_folder
from atr_moco_plugin.search.local.writing import LocalWriter
from atr_moco_plugin.search.store import IndexInfo

LEAST = 20_000
"""Windows, of an index or of what a filter takes, that an exact search goes through as quickly."""
MOST = 1000
"""Windows asked for, of which more are searched for exactly."""
MOST_CORRECTED = 125
"""The same where scores are corrected, which takes more candidates."""
NEW = 0.05
"""Part of the windows that may be missing in the file before it is brought up to date."""
DEAD = 0.25
"""Part of the windows in the file that may be removed ones before it is made anew."""
GROWN = 1.5
"""How many times as many lists an index may want before its file is made anew."""


@dataclass(frozen=True)
class Covering:
    """What the file of FAISS has of an index as of one moment.

    Attributes:
        index: of FAISS.
        fresh: the first row whose window is not in it; those after it are not either.
        order: ``[R]`` the recordings in the order of their numbers.
        allowed: a bit for each number in it that is live; None where all are.
    """

    index: ivf.Index
    fresh: int
    order: NDArray[np.int64]
    allowed: NDArray[np.uint8] | None

    @classmethod
    def of(cls, index: ivf.Index, record: Record, now: Snapshot) -> Covering:
        """Compare the file with the index."""
        later = now.first_rows[now.ids >= record.covered]
        fresh = int(later.min()) if len(later) else now.state.rows
        rows = live_rows(now)
        numbers = now.numbers(rows[rows < fresh])
        whole = len(numbers) == index.ntotal
        return cls(
            index=index,
            fresh=fresh,
            order=np.argsort(now.ids),
            allowed=None if whole else bits(numbers, record.covered),
        )

    def rows(self, now: Snapshot, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of some live windows."""
        place = np.searchsorted(now.ids, numbers, side="right", sorter=self.order) - 1
        recordings = self.order[place]
        return now.first_rows[recordings] + numbers - now.ids[recordings]


def live_rows(now: Snapshot) -> NDArray[np.int64]:
    """Rows that are no removed recording's, ascending."""
    return np.arange(now.state.rows) if now.live is None else np.flatnonzero(now.live)


def bits(numbers: NDArray[np.int64], most: int) -> NDArray[np.uint8]:
    """A bit for each number below ``most``, set for those given, the lowest bit first."""
    flags = np.zeros(most, np.bool_)
    flags[numbers[numbers < most]] = True
    return np.packbits(flags, bitorder="little")


class FaissReader(LocalReader):
    """An index in a folder, opened for reading and searched by FAISS.

    What was put since the file of FAISS was made is searched exactly, and what was removed is never
    a hit. A search is exact in a small index, for many hits, where a filter takes little, and with
    a correction beyond :data:`~atr_moco_plugin.search.bank.ROUGH_ALPHA`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._opened: tuple[Record, ivf.Index] | None = None
        self._covering: tuple[Record, Snapshot, Covering] | None = None

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
        count = now.state.rows if live is None else int(live.sum())
        covering = None
        few = k <= (MOST if less is None else MOST_CORRECTED) and alpha <= ROUGH_ALPHA
        if few and count >= LEAST and count * ivf.PART >= now.state.rows:
            covering = self._cover(connection, now)
        if covering is None:
            return best_rows(now.matrix, query, k, live, less)
        allowed = covering.allowed
        if live is not None and live is not now.live:
            taken = np.flatnonzero(live)
            allowed = bits(now.numbers(taken[taken < covering.fresh]), now.state.next)
        many = ivf.CANDIDATES if less is None else ivf.CORRECTED
        numbers = ivf.candidates(covering.index, query, many * k, allowed)
        rows = covering.rows(now, numbers)
        scores = exact_scores(now.matrix, rows, query, less)
        if covering.fresh < now.state.rows:
            part = slice(covering.fresh, None)
            more, their = best_rows(
                now.matrix[part],
                query,
                k,
                None if live is None else live[part],
                None if less is None else less[part],
            )
            rows = np.concatenate([rows, more + covering.fresh])
            scores = np.concatenate([scores, their])
        if len(rows) < min(k, count):  # the lists that were looked into have no more
            return best_rows(now.matrix, query, k, live, less)
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        with self._turn:
            self._opened = self._covering = None
        super().__exit__(kind, error, trace)

    def _reopen(self) -> None:
        # An index made anew counts its files of FAISS from 1 again.
        self._opened = self._covering = None
        super()._reopen()

    def _cover(self, connection: sqlite3.Connection, now: Snapshot) -> Covering | None:
        """The file of FAISS as it stands to the index; None where there is none to ask."""
        record = read_record(connection)
        if record is None or not record.build:
            return None
        if self._covering is None or self._covering[0] != record or self._covering[1] is not now:
            index = self._open(record)
            if index is None:
                return None
            self._covering = (record, now, Covering.of(index, record, now))
        return self._covering[2]

    def _open(self, record: Record) -> ivf.Index | None:
        if self._opened is None or self._opened[0] != record:
            path = faiss_file(self._folder, record.build)
            if not path.is_file() or path.stat().st_size != record.size:
                warnings.warn(
                    f"{path} is missing or not whole, so that searches are exact and slower: run "
                    "`index --engine faiss` again.",
                    stacklevel=2,
                )
                return None
            self._opened = (record, ivf.read(path))
        return self._opened[1]


class FaissWriter(LocalWriter, FaissReader):
    """An index in a folder that FAISS searches, opened by its one writer.

    Args:
        folder: of the index.
        info: makes an index where there is none, and is compared with that of one that is there.
    """

    def __init__(self, folder: Path, info: IndexInfo | None = None) -> None:
        super().__init__(folder, info)
        with self._transaction() as connection:
            record = read_record(connection)
        if record is None:
            self._name(Record())
        else:
            self._remove_others(record)  # of a writer that was killed on its way to the next file

    def finish(self, *, progress: bool = False) -> None:
        """Bring the file of FAISS up to date, where enough has changed.

        Searches are right without it, and slower the more has changed.
        """
        super().finish(progress=progress)
        with self._snapshot() as (now, connection):
            record = read_record(connection) or Record()
        # From here on nothing is locked: nobody but this process writes, and others may read.
        rows = live_rows(now)
        numbers = now.numbers(rows)
        new = numbers >= record.covered
        old = self._open(record) if record.build else None
        if len(rows) < LEAST:
            return
        kept = len(rows) - int(new.sum())
        if (
            old is None
            or old.ntotal - kept > DEAD * old.ntotal
            or ivf.lists_for(len(rows)) > GROWN * old.nlist
        ):
            index = ivf.train(now.matrix, rows, progress=progress)
            new = np.ones(len(rows), np.bool_)
        elif new.sum() > NEW * kept:
            index = ivf.read(faiss_file(self._folder, record.build), change=True)
        else:
            return
        ivf.add(index, now.matrix, rows[new], numbers[new], progress=progress)
        path = faiss_file(self._folder, record.build + 1)
        with told(self._folder):
            size = ivf.write(index, path)
            sync_folder(self._folder)
        self._name(Record(record.build + 1, now.state.next, size))

    def leave(self) -> None:
        """Make it an index that is searched exactly."""
        self._name(None)

    def _name(self, record: Record | None) -> None:
        """Say which file counts, and remove the others."""
        with self._turn, told(self._folder):
            with catalog.change(self._connection):
                write_record(self._connection, record)
            self._remove_others(record)

    def _remove_others(self, record: Record | None) -> None:
        for path in faiss_files(self._folder):
            if record is None or path != faiss_file(self._folder, record.build):
                path.unlink()
