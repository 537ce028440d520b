"""Intervals of all figures of an evaluation, from what each query got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.bootstrap import (
    LEVEL,
    REPLICATES,
    SEED,
    ClusterDraws,
    check_interval,
    score_interval,
)
from atr_moco_plugin.evaluation.metrics import CUTOFFS, MEANS, query_values
from atr_moco_plugin.evaluation.queries import SplitQueries
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, DUPLICATES, Direction
from atr_moco_plugin.evaluation.rerank import DUAL, System
from atr_moco_plugin.evaluation.retrieval import by_system

Intervals = dict[str, list[float]]
"""Name of a figure to its lowest and highest value."""


def split_intervals(queries: SplitQueries, rerank_k: Sequence[int] = ()) -> dict[str, Any]:
    """Intervals of the figures of a split, for ``retrieval.json``.

    Args:
        queries: what each query got.
        rerank_k: numbers of candidates that were re-ranked.

    Returns:
        ``level``, ``replicates``, ``seed``; ``clusters``, their number, by direction where clips
        and texts are drawn apart; and where
        :func:`~atr_moco_plugin.evaluation.retrieval.system_figures` has figures, by the name of
        each its lowest and highest value. Numbers of clips, captions and skipped queries have none.
    """
    found = system_intervals(queries, seed=SEED)

    def of(system: System) -> Intervals:
        result = of_every_relevance(found, system.name)
        if f"{DUAL.name}{DUPLICATES}" not in found and system == DUAL:
            again = {f"{way}_precision1": result.get(f"{way}_r1") for way in DIRECTIONS}
            result |= {figure: ends for figure, ends in again.items() if ends is not None}
        return result

    sizes = {way: len(numbers) for way, numbers in _clusters(queries).items()}
    return {
        "level": LEVEL,
        "replicates": REPLICATES,
        "seed": SEED,
        "clusters": sizes["a2t"] if queries.joint else sizes,
        **by_system(of, rerank_k),
    }


def of_every_relevance(found: Mapping[str, Intervals], system: str) -> Intervals:
    """The intervals of one system in :func:`system_intervals`, each name with its suffix."""
    return {
        f"{figure}{suffix}": ends
        for suffix in ("", DUPLICATES)
        for figure, ends in found.get(f"{system}{suffix}", {}).items()
    }


def system_intervals(
    queries: SplitQueries,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Intervals]:
    """Intervals of R@k, mAP@10, median rank and R-sum of every system.

    Those of R@k, mAP@10 and R-sum are :func:`~atr_moco_plugin.evaluation.bootstrap.score_interval`,
    that of the median rank are quantiles of the replicates. Both directions draw the same clips
    where a clip and its captions are one cluster. A direction with a single cluster has none.

    Args:
        queries: what each query got.
        level: share of intervals that hold the true value.
        replicates: how often the clusters are drawn.
        seed: of the draws.

    Returns:
        By system and figure lowest and highest, R@k and mAP@10 in percent.

    Raises:
        ValueError: when the level is not between 0 and 1, or there are fewer than two replicates.
    """
    check_interval(level, replicates)
    systems = list(queries.systems["a2t"])
    result: dict[str, Intervals] = {system: {} for system in systems}
    recalls = torch.zeros(len(systems), dtype=torch.float64)
    recall_replicates = torch.zeros(replicates, len(systems), dtype=torch.float64)
    numbers = _clusters(queries)
    draws: ClusterDraws | None = None
    for turn, way in enumerate(DIRECTIONS):
        n = len(numbers[way])
        if n < 2:
            continue
        if draws is None or not queries.joint:
            # Texts that are no part of a clip are drawn by themselves.
            draws = ClusterDraws(n, replicates=replicates, seed=seed + turn)
        found = _direction(queries, way, numbers[way], draws)
        ends = score_interval(found.means, found.replicates, n, level=level, least=found.least)
        for i, system in enumerate(systems):
            for j, name in enumerate(MEANS):
                result[system][f"{way}_{name}"] = _rounded([100 * float(x[i, j]) for x in ends])
            result[system][f"{way}_medr"] = _quantiles(found.medians[i], level)
        recalls += found.means[:, : len(CUTOFFS)].sum(dim=1)
        recall_replicates += found.replicates[:, :, : len(CUTOFFS)].sum(dim=2)
    fewest = min(map(len, numbers.values()))
    if fewest > 1:
        of_one = len(DIRECTIONS) * len(CUTOFFS)
        ends = score_interval(recalls / of_one, recall_replicates / of_one, fewest, level=level)
        for i, system in enumerate(systems):
            result[system]["r_sum"] = _rounded([100 * of_one * float(x[i]) for x in ends])
    return result


class _Direction(NamedTuple):
    """Figures of the S systems in one direction, and of R replicates of its queries.

    Attributes:
        means: ``[S, 4]`` R@k and mAP@10, in [0, 1].
        least: ``[S, 4]`` variance of the means if all queries were independent.
        replicates: ``[R, S, 4]``.
        medians: ``[S, R]`` median ranks of the replicates.
    """

    means: Tensor
    least: Tensor
    replicates: Tensor
    medians: Tensor


def _direction(
    queries: SplitQueries, way: Direction, numbers: Tensor, draws: ClusterDraws
) -> _Direction:
    """Draw the queries of one direction, whose clusters are ``numbers``."""
    systems = list(queries.systems[way].values())
    kept = torch.isin(queries.cluster[way], numbers)
    cluster = torch.searchsorted(numbers, queries.cluster[way][kept])
    ranks = [of.rank[kept] for of in systems]
    values = torch.cat([query_values(of)[kept] for of in systems], dim=1)
    counted = torch.stack([rank > 0 for rank in ranks for _ in MEANS], dim=1)
    size = counted.sum(dim=0)
    means = (values * counted).sum(dim=0) / size
    least = ((values - means) ** 2 * counted).sum(dim=0) / size**2
    shape = (len(ranks), len(MEANS))
    return _Direction(
        means.view(shape),
        least.view(shape),
        draws.means(values, cluster, counted).view(-1, *shape),
        torch.stack([draws.medians(rank[rank > 0], cluster[rank > 0]) for rank in ranks]),
    )


def _clusters(queries: SplitQueries) -> dict[Direction, Tensor]:
    """Clusters of the queries that have a relevant item under any relevance."""
    found: dict[Direction, Tensor] = {}
    for way in DIRECTIONS:
        ranks = torch.stack([of.rank for of in queries.systems[way].values()])
        found[way] = queries.cluster[way][(ranks > 0).any(dim=0)].unique()
    if queries.joint:
        return dict.fromkeys(DIRECTIONS, torch.cat(list(found.values())).unique())
    return found


def _quantiles(replicates: Tensor, level: float) -> list[float]:
    """Ends of the middle replicates, both of them values that occurred."""
    tail = (1 - level) / 2
    low = replicates.quantile(tail, interpolation="lower")
    return _rounded([float(low), float(replicates.quantile(1 - tail, interpolation="higher"))])


def _rounded(ends: Sequence[float]) -> list[float]:
    # Sums of other numbers of threads differ in digits that mean nothing.
    return [round(end, 4) for end in ends]
