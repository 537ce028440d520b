"""How sure two sides are to be alike where every clip says the same, or all but a few do, so that
draws of clips say little of what other clips would say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.measures import Measures, Run, Values
from atr_moco_plugin.evaluation.metrics import CUTOFFS

FEW = 6
"""Clusters that differ, of which fewer cannot make p 5 %: five that all differ to one side have
``2 ** -4``."""

_TAIL = 0.025
_LAST_BITS = 1e-9


def clusters_of(measures: Measures) -> NDArray[np.int64]:
    """``[F]`` how many clusters each figure rests on: those of its direction, and for R-sum those
    of the direction that has fewer.

    Example:
        >>> apart = Measures({"a2t": np.arange(9), "t2a": 9 + np.arange(2)}, (9, 2), medians=False)
        >>> clusters_of(apart).tolist()
        [9, 9, 9, 9, 2, 2, 2, 2, 2]
    """
    ends = np.cumsum(measures.strata)
    of_way = {
        way: measures.strata[np.searchsorted(ends, cluster.max(), side="right")]
        for way, cluster in measures.cluster.items()
    }
    fewest = min(of_way.values())
    return np.array([of_way.get(name.split("_")[0], fewest) for name in measures.names])


def clusters_apart(measures: Measures, ours: Sequence[Run], base: Sequence[Run]) -> Values:
    """``[F]`` in how many clusters the two sides differ, by the means over their runs."""
    found: dict[str, Values] = {"r_sum": np.zeros(measures.clusters)}
    for way, cluster in measures.cluster.items():

        def summed(values: Values, cluster: NDArray[np.int64] = cluster) -> Values:
            return 100 * np.bincount(cluster, values, measures.clusters) / len(cluster)

        ranks = [np.stack([run[way].rank for run in side]) for side in (ours, base)]
        precisions = [np.stack([run[way].precision for run in side]) for side in (ours, base)]
        for k in CUTOFFS:
            hits = [(rank <= k).mean(axis=0) for rank in ranks]
            found[f"{way}_r{k}"] = summed(hits[0] - hits[1])
            found["r_sum"] += found[f"{way}_r{k}"]
        found[f"{way}_map10"] = summed(precisions[0].mean(axis=0) - precisions[1].mean(axis=0))
        # A median can move where the ranks of a cluster differ but their sums do not.
        found[f"{way}_medr"] = summed(np.abs(ranks[0].mean(axis=0) - ranks[1].mean(axis=0)))
    counts = [(np.abs(found[name]) > _LAST_BITS).sum() for name in measures.names]
    return np.array(counts, dtype=np.float64)


def agreed_interval(
    difference: Values, most: Values, clusters: NDArray[np.int64]
) -> tuple[Values, Values]:
    """The 95 % interval of differences of means where all clusters differ by the same.

    The share of all clusters that differ by something else is at most ``1 - 0.025 ** (1 / n)``,
    about 3.7 / n (Clopper and Pearson 1934, for none of n), and those differ by ``most`` at most.

    Args:
        difference: ``[F]``, what every cluster differs by.
        most: ``[F]``, the largest difference, to either side.
        clusters: ``[F]``, n, how many there are.

    Returns:
        Lowest and highest, ``[F]`` each.

    Example:
        >>> low, high = agreed_interval(np.array([0.0]), np.array([100.0]), np.array([100]))
        >>> print(low.round(1), high.round(1))
        [-3.6] [3.6]
    """
    share = _share(clusters)
    return difference - share * (most + difference), difference + share * (most - difference)


def medians_moved(measures: Measures, runs: Sequence[Run]) -> Values:
    """``[F]`` how far the median ranks of any of the runs can move, 0 for figures that are none.

    The same share p of the clusters gets any other rank at most. So the median comes no further
    than to the quantiles ``0.5 - p`` and ``0.5 + p`` of the ranks.
    """
    moved = np.zeros(len(measures.names))
    for n, share in enumerate(_share(clusters_of(measures))):
        way, _, kind = measures.names[n].partition("_")
        for run in runs if kind == "medr" else ():
            rank = run[way].rank
            low = np.quantile(rank, max(0.5 - share, 0), method="lower")
            high = np.quantile(rank, min(0.5 + share, 1), method="higher")
            middle = np.median(rank)
            moved[n] = max(moved[n], middle - low, high - middle)
    return moved


def medians_apart(ours: Values, base: Values) -> tuple[Values, Values]:
    """The 95 % interval of differences of medians that agree in all draws of the same clusters,
    although many of these differ: from what each side's median could be by itself.

    Args:
        ours: ``[R, F]`` medians of the draws.
        base: of the other side.

    Returns:
        Lowest and highest, ``[F]`` each.
    """
    low = [np.quantile(side, _TAIL, axis=0, method="lower") for side in (ours, base)]
    high = [np.quantile(side, 1 - _TAIL, axis=0, method="higher") for side in (ours, base)]
    return low[0] - high[1], high[0] - low[1]


def sign_test(clusters: Values) -> Values:
    """The p-values of n clusters that all differ to one side: no n clusters have a smaller one."""
    return np.minimum(1.0, 2.0 ** (1 - clusters))


def _share(clusters: NDArray[np.int64]) -> Values:
    """The share of all clusters that can differ where none of n does."""
    share: Values = 1 - _TAIL ** (1 / clusters)
    return share
