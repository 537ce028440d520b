"""The figures of a test set from what its queries got, with every cluster counted as often as a
weight says.

A cluster is a clip with its captions, whose queries are not independent. Drawing clusters with
replacement or giving one run's to the other are both weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.evaluation.metrics import CUTOFFS, MEANS

Values = NDArray[np.float64]
"""Figures, the last dimension in the order of :attr:`Measures.names`."""

_BLOCK = 2**23
"""Numbers in one block of weights: 64 MiB in float64."""


class Ranks(NamedTuple):
    """What the Q queries of one direction got.

    Attributes:
        rank: ``[Q]`` int64 from 1, of the best relevant item.
        precision: ``[Q]`` float64, AP@10 in [0, 1].
    """

    rank: NDArray[np.int64]
    precision: NDArray[np.float64]


Run = Mapping[str, Ranks]
"""What all queries of one evaluated model got, by direction."""


@dataclass(frozen=True)
class Measures:
    """Which queries there are, and the figures that are made of them.

    Attributes:
        cluster: by direction ``[Q]`` int64, the number of each query's cluster.
        strata: how many clusters there are, apart for clusters that are drawn apart: clips and
            texts where neither belongs to the other. Cluster numbers count through all of them.
        medians: whether there are median ranks; not where ranks end at some depth.
    """

    cluster: Mapping[str, NDArray[np.int64]]
    strata: tuple[int, ...]
    medians: bool = True

    @property
    def clusters(self) -> int:
        """C, the number of clusters."""
        return sum(self.strata)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the figures: ``a2t_r1`` ... ``a2t_map10``, and ``r_sum`` of two directions."""
        return (*self._means, *self._medians, *self._sums)

    @property
    def most(self) -> Values:
        """``[F]`` the largest difference that two runs can have: none is known of medians."""
        recalls = sum("_r" in name for name in self._means)
        return np.array(
            [100.0] * len(self._means)
            + [np.inf] * len(self._medians)
            + [100.0 * recalls] * len(self._sums)
        )

    @property
    def _means(self) -> tuple[str, ...]:
        return tuple(f"{way}_{kind}" for way in self.cluster for kind in MEANS)

    @property
    def _medians(self) -> tuple[str, ...]:
        return tuple(f"{way}_medr" for way in self.cluster) if self.medians else ()

    @property
    def _sums(self) -> tuple[str, ...]:
        return ("r_sum",) if len(self.cluster) == 2 else ()

    def draws(self, number: int, rng: np.random.Generator) -> Iterator[Values]:
        """How often each cluster is drawn, where as many are drawn as there are, with replacement.

        Args:
            number: of draws.
            rng: draws them.

        Yields:
            ``[n, C]`` float64, blocks of draws with about 64 MiB each.
        """
        for rows in self._blocks(number):
            parts = [rng.multinomial(n, np.full(n, 1 / n), size=rows) for n in self.strata]
            yield np.concatenate(parts, axis=1).astype(np.float64)

    def flips(self, number: int, rng: np.random.Generator) -> Iterator[Values]:
        """Which clusters two runs exchange, each with probability one half.

        Yields:
            ``[n, C]`` float64: 1 where it is exchanged, else 0.
        """
        for rows in self._blocks(number):
            yield rng.integers(0, 2, (rows, self.clusters)).astype(np.float64)

    def _blocks(self, number: int) -> Iterator[int]:
        queries = max(len(cluster) for cluster in self.cluster.values())
        rows = max(_BLOCK // max(self.clusters, 2 * queries), 1)
        for start in range(0, number, rows):
            yield min(rows, number - start)

    def figures(self, run: Run, weights: Values) -> Values:
        """The figures where each query counts as often as its cluster's weight says.

        Args:
            run: ranks and precisions.
            weights: ``[n, C]``, not negative.

        Returns:
            ``[n, F]``: R@k and mAP@10 in percent, median ranks, R-sum. NaN where no query counts.
        """
        with np.errstate(invalid="ignore"):
            means = 100 * (weights @ self._cluster_sums(run)) / (weights @ self._counts())
        medians = [
            _Levels(run[way].rank).medians(weights, cluster) for way, cluster in self._of_medians()
        ]
        return self._with_sums(means, medians)

    def exchanged(self, ours: Run, base: Run, flips: Values) -> Values:
        """Differences of two runs after they have exchanged what some clusters got.

        Args:
            ours: a run.
            base: the run that it is compared with.
            flips: ``[n, C]``, see :meth:`flips`.

        Returns:
            ``[n, F]``, figures of ``ours`` minus those of ``base``.
        """
        apart = self._cluster_sums(ours) - self._cluster_sums(base)
        means = 100 * ((1 - 2 * flips) @ apart) / self._counts().sum(axis=0)
        medians = [
            _Levels(np.concatenate([ours[way].rank, base[way].rank])).apart(flips, cluster)
            for way, cluster in self._of_medians()
        ]
        return self._with_sums(means, medians)

    def _of_medians(self) -> list[tuple[str, NDArray[np.int64]]]:
        return list(self.cluster.items()) if self.medians else []

    def _with_sums(self, means: Values, medians: list[Values]) -> Values:
        parts = [means, *(median[:, None] for median in medians)]
        if self._sums:
            recall = [number for number, name in enumerate(self._means) if "_r" in name]
            parts.append(means[:, recall].sum(axis=1, keepdims=True))
        return np.concatenate(parts, axis=1)

    def _cluster_sums(self, run: Run) -> Values:
        """``[C, F]`` sums over the queries of a cluster, for figures that are means."""
        columns = []
        for way, cluster in self.cluster.items():
            rank, precision = run[way]
            for values in (*((rank <= k).astype(np.float64) for k in CUTOFFS), precision):
                columns.append(np.bincount(cluster, values, self.clusters))
        return np.stack(columns, axis=1)

    def _counts(self) -> Values:
        """``[C, F]`` number of queries of a cluster, in the columns of the sums."""
        columns = [
            np.bincount(cluster, minlength=self.clusters).astype(np.float64)
            for cluster in self.cluster.values()
        ]
        return np.repeat(np.stack(columns, axis=1), len(CUTOFFS) + 1, axis=1)


class _Levels:
    """The distinct values of ``[Q]``, so that medians need no number for each query."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        self._values = ordered[self._starts]

    def medians(self, weights: Values, cluster: NDArray[np.int64]) -> Values:
        """Medians ``[n]``, each value counted as often as the weight of its cluster says."""
        return self._medians(self._counted(weights[:, cluster[self._order]]))

    def apart(self, flips: Values, cluster: NDArray[np.int64]) -> Values:
        """``[n]`` the median of the first half of the values less that of the second, where the
        halves have exchanged the clusters of ``flips``."""
        second = self._order >= len(cluster)
        weights = flips[:, np.concatenate([cluster, cluster])[self._order]]
        weights[:, ~second] = 1 - weights[:, ~second]
        counted = self._counted(weights)
        both = self._counted(np.ones((1, len(self._order))))
        return self._medians(counted) - self._medians(both - counted)

    def _counted(self, weights: Values) -> Values:
        """``[n, levels]`` how many are at or below each distinct value."""
        counted: Values = np.cumsum(np.add.reduceat(weights, self._starts, axis=1), axis=1)
        return counted

    def _medians(self, counted: Values) -> Values:
        """The mean of the middle two for an even number; NaN for none."""
        total = counted[:, -1:]
        ends = []
        for middle in (np.floor((total + 1) / 2), np.ceil((total + 1) / 2)):
            place = (counted < middle).sum(axis=1)
            ends.append(self._values[np.minimum(place, len(self._values) - 1)])
        return np.where(total[:, 0] > 0, (ends[0] + ends[1]) / 2, np.nan)
