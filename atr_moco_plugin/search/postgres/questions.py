"""What a search asks PostgreSQL, as SQL: the score is the cosine, or what a correction leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from atr_moco_plugin.search.postgres.rows import RECORDING, conditions
from atr_moco_plugin.search.store import Filter

# In float32 from what is stored. Being another expression than the one that an HNSW index is made
# of, it never uses one.
_COSINE = "-(w.embedding::vector <#> %s)"


@dataclass(frozen=True)
class Questions:
    """Queries of the windows, with what stands for ``%s`` in them.

    Rows of windows are number, score, offset, start, end and :data:`RECORDING`. A window without an
    offset has no score, and comes first.

    Attributes:
        only: which recordings are looked at.
        alpha: how much of a window's offset is taken off its cosine; 0 asks for no offset, which
            then is 0.
    """

    only: Filter | None
    alpha: float

    @property
    def _score(self) -> str:
        return f"{_COSINE} - %s * o.value" if self.alpha else _COSINE

    @property
    def _offset(self) -> str:
        return "o.value" if self.alpha else "0"

    @property
    def _tables(self) -> str:
        tables = "w JOIN recordings r ON r.id = w.recording"
        return tables + (" LEFT JOIN offsets o ON o.number = w.number" if self.alpha else "")

    def _asked(self, query: NDArray[np.float32]) -> list[Any]:
        return [query, self.alpha] if self.alpha else [query]

    def exact(self, query: NDArray[np.float32], k: int) -> tuple[str, list[Any]]:
        """The k windows with the highest score, of all."""
        where, values = conditions(self.only)
        return (
            f"SELECT w.number, {self._score} AS score, {self._offset}, w.start, w.stop, {RECORDING}"
            f" FROM windows {self._tables} {where} ORDER BY score DESC, w.number LIMIT %s"
        ), [*self._asked(query), *values, k]

    def approximate(
        self, query: NDArray[np.float32], k: int, candidates: int, kind: str
    ) -> tuple[str, list[Any]]:
        """The k windows with the highest score, of as many candidates as an HNSW index finds by
        their cosine; it answers the inner query, whose vectors are of a ``kind``."""
        return (
            f"SELECT w.number, {self._score} AS score, {self._offset}, w.start, w.stop, {RECORDING}"
            f" FROM (SELECT * FROM windows ORDER BY embedding <#> %s::{kind} LIMIT %s) "
            f"{self._tables} ORDER BY score DESC, w.number LIMIT %s"
        ), [*self._asked(query), query, candidates, k]

    def best_of_each(self, queries: list[NDArray[np.float32]]) -> tuple[str, list[Any]]:
        """For every recording and query: score, number and offset of the best window, the number
        below 0."""
        # The greatest array: of equal scores, the one with the least number.
        best = f"max(ARRAY[{self._score}, -w.number, {self._offset}])"
        where, values = conditions(self.only)
        return (
            f"SELECT {', '.join([best] * len(queries))} FROM windows {self._tables} {where} "
            "GROUP BY r.id ORDER BY r.path, r.member"
        ), [*(value for query in queries for value in self._asked(query)), *values]


def has_hnsw(cursor: psycopg.Cursor[Any]) -> bool:
    """Whether someone made an HNSW index of the embeddings."""
    cursor.execute(
        "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = to_regclass('windows') AND a.amname = 'hnsw'"
    )
    return cursor.fetchone() is not None
