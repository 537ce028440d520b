"""What a search needs of an index, as of one moment."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.search.local.catalog import State
from atr_moco_plugin.search.local.vectors import map_rows, vector_file


@dataclass(frozen=True)
class Snapshot:
    """An index as of one moment. Shapes: R recordings that can be searched, N rows, d their size.

    Attributes:
        state: what the index says of itself.
        matrix: ``[N, d]`` float16, mapped; rows of removed recordings too.
        ids: ``[R]`` number of the first window of each recording, in the order of their names.
        first_rows: ``[R]`` its row.
        counts: ``[R]`` windows of each.
        by_row: ``[R]`` the recordings in the order of their rows.
        live: ``[N]`` rows that are no removed recording's; None where all are.
    """

    state: State
    matrix: NDArray[np.float16]
    ids: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    by_row: NDArray[np.int64]
    live: NDArray[np.bool_] | None

    @classmethod
    def read(cls, connection: sqlite3.Connection, folder: Path, state: State) -> Snapshot:
        """Read it; a part of a transaction.

        Raises:
            FileNotFoundError: where the file of vectors is gone.
            InputError: where that is too short.
        """
        matrix = map_rows(vector_file(folder, state.vectors), state.rows, state.info.embed_dim)
        found = connection.execute(
            "SELECT id, first_row, windows FROM recordings WHERE windows > 0 ORDER BY path, member"
        )
        flat = np.fromiter((x for row in found for x in row), np.int64)
        ids, first_rows, counts = np.ascontiguousarray(flat.reshape(-1, 3).T)
        whole = int(counts.sum()) == state.rows
        return cls(
            state=state,
            matrix=matrix,
            ids=ids,
            first_rows=first_rows,
            counts=counts,
            by_row=np.argsort(first_rows),
            live=None if whole else mask(state.rows, first_rows, counts),
        )

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the windows in some live rows."""
        place = np.searchsorted(self.first_rows, rows, side="right", sorter=self.by_row) - 1
        recordings = self.by_row[place]
        return self.ids[recordings] + rows - self.first_rows[recordings]


def mask(rows: int, first_rows: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``[rows]``, whether a row is in one of some stretches that do not overlap."""
    steps = np.zeros(rows + 1, np.int8)
    steps[first_rows] += 1
    np.subtract.at(steps, first_rows + counts, 1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)


def stretches(first_rows: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of some stretches, one after the other."""
    starts = np.cumsum(counts) - counts
    return np.repeat(first_rows - starts, counts) + np.arange(counts.sum())
