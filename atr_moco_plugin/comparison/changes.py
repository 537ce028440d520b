"""The queries that changed most from one side to another, to look at and to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.assemble import Comparison, Pair
from atr_moco_plugin.comparison.results import UNLISTED, Result, Way
from atr_moco_plugin.evaluation.trec import clip_key


@dataclass(frozen=True)
class Answer:
    """What one side made of a query.

    Attributes:
        side: its name.
        ranks: of the best relevant item, one for each run; "beyond 100" where a file ends before.
        first: what its first run puts first.
        right: whether that is known to be relevant.
    """

    side: str
    ranks: tuple[str, ...]
    first: str
    right: bool


@dataclass(frozen=True)
class Change:
    """A query whose answer changed.

    Attributes:
        query: the caption or the key of the clip.
        relevant: the keys of the clips of a caption, or captions of a clip; empty where an
            evaluation does not say.
        answers: of both sides, the one that is compared with first.
    """

    query: str
    relevant: tuple[str, ...]
    answers: tuple[Answer, Answer]

    @property
    def shown(self) -> tuple[str, ...]:
        """The first of :attr:`relevant`: a class may have forty."""
        return self.relevant[:3]


@dataclass(frozen=True)
class Changes:
    """Queries of one direction.

    Attributes:
        way: ``a2t`` or ``t2a``.
        better: those that got better, the largest change first.
        worse: those that got worse.
    """

    way: str
    better: tuple[Change, ...]
    worse: tuple[Change, ...]


def find_changes(comparison: Comparison, pair: Pair, number: int) -> list[Changes]:
    """The queries whose reciprocal rank, the mean over a side's runs, changed most.

    From rank 10 to rank 1 is more than from rank 300 to 30. For variety, one query of a cluster is
    shown.

    Args:
        comparison: the comparison.
        pair: two of its sides.
        number: of queries on each side of a direction.
    """
    base, ours = comparison.results[pair.base], comparison.results[pair.ours]
    names = tuple(comparison.sides[n].name for n in (pair.base, pair.ours))
    found = []
    for way in base[0].ways:
        before, after = (
            np.mean([_reciprocal(result.ways[way]) for result in side], axis=0)
            for side in (base, ours)
        )
        gain = after - before
        order: NDArray[np.int64] = np.argsort(-gain, kind="stable")
        better = _distinct(order, gain > 0, base[0].ways[way], number)
        worse = _distinct(order[::-1], gain < 0, base[0].ways[way], number)
        found.append(
            Changes(
                way,
                *(
                    tuple(_change(way, q, (base, ours), (names[0], names[1])) for q in chosen)
                    for chosen in (better, worse)
                ),
            )
        )
    return found


def _reciprocal(way: Way) -> NDArray[np.float64]:
    """1 / rank; 0 for what is not listed or has no answer."""
    rank = way.rank.astype(np.float64)
    known = (rank > 0) & (rank < UNLISTED)
    found: NDArray[np.float64] = np.divide(1.0, rank, out=np.zeros_like(rank), where=known)
    return found


def _distinct(
    order: NDArray[np.int64],
    changed: NDArray[np.bool_],
    way: Way,
    number: int,
) -> list[int]:
    chosen: dict[int, int] = {}
    for query in order.tolist():
        if len(chosen) == number or not changed[query]:
            break
        chosen.setdefault(int(way.cluster[query]), query)
    return list(chosen.values())


def _change(
    way: str, query: int, sides: tuple[Sequence[Result], Sequence[Result]], names: tuple[str, str]
) -> Change:
    first = sides[0][0]
    relevant = _relevant(first, way, query)
    answers = []
    for name, side in zip(names, sides, strict=True):
        of_query = [result.ways[way] for result in side]
        ranks = [int(found.rank[query]) for found in of_query]
        answers.append(
            Answer(
                name,
                tuple(
                    f"beyond {result.depth}" if rank >= UNLISTED else f"{rank:,}"
                    for result, rank in zip(side, ranks, strict=True)
                ),
                _shown(first, "t2a" if way == "a2t" else "a2t", _first(of_query[0], query)),
                ranks[0] == 1,
            )
        )
    text = _shown(first, way, first.ways[way].queries[query])
    return Change(text, relevant, (answers[0], answers[1]))


def _first(way: Way, query: int) -> str:
    return way.items[int(way.first[query])]


def _shown(result: Result, way: str, name: str) -> str:
    """The name of a query of a direction as it is shown: of a clip its key."""
    return clip_key(name) if result.depth is not None and way == "a2t" else name


def _relevant(result: Result, way: str, query: int) -> tuple[str, ...]:
    if judged := result.ways[way].relevant:
        return tuple(_shown(result, "a2t" if way == "t2a" else "t2a", x) for x in judged[query])
    if not result.joint:
        return ()
    clip = int(result.ways[way].cluster[query])
    if way == "t2a":
        return (result.ways[way].items[clip],)
    captions = result.ways["t2a"]
    return tuple(captions.queries[n] for n in np.flatnonzero(captions.cluster == clip))
