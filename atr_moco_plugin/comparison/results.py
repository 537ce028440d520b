"""What one model got on the queries of a test set, from an evaluation or from files of TREC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.sides import Source
from atr_moco_plugin.errors import InputError, counted, listed
from atr_moco_plugin.evaluation.queries import QUERIES_FILE, SplitQueries, read_queries
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, DUPLICATES, Direction

_TEST = "test"
UNLISTED = 2**31
"""Rank of a query whose relevant items are not among those that a file lists."""


@dataclass(frozen=True)
class Way:
    """The Q queries of one direction, and what they got.

    Attributes:
        queries: their texts, or the keys of clips.
        items: what is found: keys of clips, or texts.
        cluster: ``[Q]`` int64, equal for captions of one clip.
        rank: ``[Q]`` int64, of the best relevant item; 0 where there is none.
        precision: ``[Q]`` float64, AP@10.
        first: ``[Q]`` int64, the item that stands first.
        relevant: of each query the items that a file of judgements calls relevant; empty for an
            evaluation, whose clusters say it where it is ``joint``.
    """

    queries: Sequence[str]
    items: Sequence[str]
    cluster: NDArray[np.int64]
    rank: NDArray[np.int64]
    precision: NDArray[np.float64]
    first: NDArray[np.int64]
    relevant: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Result:
    """The results of one model.

    Attributes:
        name: where they are from, for messages.
        test_set: the name of the test set.
        digest: equal where queries, items and relevance are.
        joint: whether the clusters of both directions are the same clips.
        depth: how many items a query lists; None for all.
        ways: by direction ``a2t`` and ``t2a``, one or both.
        systems: names of all systems that are there.
        duplicates: whether captions with equal text count as one, of an evaluation.
    """

    name: str
    test_set: str
    digest: str
    joint: bool
    depth: int | None
    ways: Mapping[str, Way]
    systems: Sequence[str] = ()
    duplicates: bool = False


def best_ranks(results: Sequence[Result], way: str) -> NDArray[np.int64]:
    """``[runs, Q]`` ranks of the queries with an answer. One that is not listed stands just behind
    the list: how far behind is not known."""
    rank = np.stack([result.ways[way].rank for result in results])
    depth = max(result.depth or 0 for result in results)
    rank = np.where(rank >= UNLISTED, depth + 1, rank)
    return rank[:, rank[0] > 0]


def read_results(sources: Sequence[Source], system: str, split: str | None) -> list[Result]:
    """Read ``queries.safetensors`` of each folder.

    Args:
        sources: of all sides.
        system: what is read where a source does not say.
        split: the split; None for ``test``, or for the only one that all have.

    Raises:
        InputError: for a file that is missing or damaged, a system that is not in it, or a split
            that is not in all of them or that is not named where there are several.
    """
    files = [read_queries(source.path / QUERIES_FILE) for source in sources]
    common = [name for name in files[0] if all(name in file for file in files)]
    if split is None and _TEST in common:
        split = _TEST
    if split is None and len(common) > 1:
        raise InputError(f"The runs have the splits {', '.join(common)}: name one with --split.")
    split = split or next(iter(common or files[0]))
    results = []
    for source, file in zip(sources, files, strict=True):
        if split not in file:
            raise InputError(
                f"{source.path} is evaluated on {', '.join(file)}, not on {split!r}: evaluate "
                "every run on one split, or name it with --split."
            )
        results.append(_result(str(source), file[split], source.system or system))
    return results


def _result(name: str, split: SplitQueries, system: str) -> Result:
    found = sorted(set(split.systems["a2t"]) & set(split.systems["t2a"]))
    if system not in found:
        raise InputError(
            f"{name} has no results of {system!r} on {split.test_set}, but of {', '.join(found)}: "
            "name one of them with --system, or after a colon behind the run."
        )
    names: dict[Direction, tuple[str, ...]] = {"a2t": split.clips, "t2a": split.captions}
    ways: dict[str, Way] = {}
    for way, other in zip(DIRECTIONS, reversed(DIRECTIONS), strict=True):
        figures = split.systems[way][system]
        ways[way] = Way(
            names[way],
            names[other],
            split.cluster[way].numpy(),
            figures.rank.numpy(),
            figures.precision.numpy(),
            figures.first.numpy(),
        )
    return Result(name, split.test_set, split.digest, split.joint, None, ways, found,
                  system.endswith(DUPLICATES))  # fmt: skip


def check_same_test_set(results: Sequence[Result]) -> None:
    """Refuse results of different test sets, in a sentence that says what is different.

    Raises:
        InputError: where a digest is not that of the first result.
    """
    first = results[0]
    for other in results[1:]:
        if other.digest != first.digest or other.ways.keys() != first.ways.keys():
            raise InputError(
                f"{first.name} and {other.name} are not of one test set: "
                f"{_what_differs(first, other)}; a comparison takes the same queries and items."
            )
        if other.duplicates != first.duplicates:
            raise InputError(
                f"{first.name} and {other.name} are not judged alike: one counts captions with "
                f"equal text as one, the other does not; take systems with {DUPLICATES!r} at the "
                "end on both sides, or on none."
            )
        for name, way in first.ways.items():
            apart = int(((way.rank > 0) != (other.ways[name].rank > 0)).sum())
            if apart:
                raise InputError(
                    f"{first.name} and {other.name} are of one test set, but of {name} "
                    f"{counted(apart, 'query has', 'queries have')} an answer in one of them "
                    "alone: evaluate both again."
                )


def _what_differs(first: Result, other: Result) -> str:
    if first.ways.keys() != other.ways.keys():
        return f"one has {' and '.join(first.ways)}, the other {' and '.join(other.ways)}"
    of_first, of_other = _size(first), _size(other)
    if first.test_set != other.test_set:
        return f"one is {first.test_set} ({of_first}), the other {other.test_set} ({of_other})"
    for way in first.ways:
        what = "clips" if way == "a2t" else "captions"
        here, there = first.ways[way].queries, other.ways[way].queries
        more, less = sorted(set(here) - set(there)), sorted(set(there) - set(here))
        if more or less:
            gone = [f"{len(x):,} {what} only in the {side} ({listed(x, 2)})"
                    for x, side in ((more, "first"), (less, "second")) if x]  # fmt: skip
            return f"both are {first.test_set}, but {' and '.join(gone)}"
        if list(here) != list(there):
            return f"both are {first.test_set}, but the {what} stand in another order or number"
    return f"both are {first.test_set} ({of_first}), but other clips and captions are relevant"


def _size(result: Result) -> str:
    return ", ".join(
        f"{len(way.queries):,} {'clips' if name == 'a2t' else 'captions'}"
        for name, way in result.ways.items()
    )
