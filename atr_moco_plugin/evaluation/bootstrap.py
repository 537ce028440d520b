"""How sure a mean over queries is: bootstrap over clips, each of which brings all of its queries.

Captions of one clip are easy or hard together, so five captions of a clip say less than one caption
of five clips. Drawing whole clips keeps what they have in common (a cluster bootstrap, Davison and
Hinkley 1997, chapter 3.8).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.student import t_quantile

LEVEL = 0.95
"""Share of intervals that hold the true value."""

REPLICATES = 1_000
"""How often the clusters are drawn."""

SEED = 0
"""Of the draws of an evaluation, which has them written down."""

_BLOCK_ELEMENTS = 2**22


class ClusterDraws:
    """How often each replicate draws each cluster: as many draws as clusters, with repetition.

    All that is asked of one object is of the same draws, so that differences and sums of replicates
    are those of one resampled test set.

    Args:
        clusters: N, at least 1.
        replicates: R.
        seed: equal seeds draw equal clusters.

    Example:
        >>> draws = ClusterDraws(2, replicates=100)
        >>> cluster = torch.tensor([0, 0, 1])
        >>> [round(x, 2) for x in draws.means(torch.eye(3)[:, :1], cluster).unique().tolist()]
        [0.0, 0.33, 0.5]
    """

    def __init__(self, clusters: int, *, replicates: int = REPLICATES, seed: int = 0) -> None:
        self.clusters = clusters
        generator = torch.Generator().manual_seed(seed)
        rows = max(_BLOCK_ELEMENTS // clusters, 1)
        counts = []
        for start in range(0, replicates, rows):
            n = min(rows, replicates - start)
            drawn = torch.randint(clusters, (n, clusters), generator=generator)
            drawn += clusters * torch.arange(n)[:, None]
            of_row = torch.bincount(drawn.flatten(), minlength=n * clusters)
            # No cluster is drawn 256 times: of fewer clusters there are fewer draws, of more the
            # chance is below 1e-400.
            counts.append(of_row.view(n, clusters).to(torch.uint8))
        self.counts = torch.cat(counts)
        """``[R, N]`` uint8."""

    def sums(self, of_clusters: Tensor) -> Tensor:
        """Sums over the drawn clusters.

        Args:
            of_clusters: ``[N, F]`` float.

        Returns:
            ``[R, F]``, of the same dtype.
        """
        rows = max(_BLOCK_ELEMENTS // self.clusters, 1)
        blocks = torch.split(self.counts, rows)
        return torch.cat([block.to(of_clusters.dtype) @ of_clusters for block in blocks])

    def means(self, values: Tensor, cluster: Tensor, counted: Tensor | None = None) -> Tensor:
        """Means over the queries of the drawn clusters.

        Args:
            values: ``[Q, F]`` float64, of each query.
            cluster: ``[Q]`` int64 in ``[0, N)``.
            counted: ``[Q, F]`` bool, which values count; None for all of them.

        Returns:
            ``[R, F]`` float64; the mean of all where no drawn cluster has a value that counts.
        """
        counted = torch.ones_like(values) if counted is None else counted.to(values.dtype)
        both = torch.cat([values * counted, counted], dim=1)
        of_clusters = both.new_zeros(self.clusters, both.size(1)).index_add_(0, cluster, both)
        total, size = self.sums(of_clusters).chunk(2, dim=1)
        overall = (values * counted).sum(dim=0) / counted.sum(dim=0)
        return torch.where(size > 0, total / size, overall)

    def medians(self, ranks: Tensor, cluster: Tensor) -> Tensor:
        """Median ranks over the queries of the drawn clusters.

        A median more than four standard errors from that of all queries is cut off there, which no
        quantile between 0.01 and 0.99 sees.

        Args:
            ranks: ``[Q]`` int64.
            cluster: ``[Q]`` int64 in ``[0, N)``.

        Returns:
            ``[R]`` float64, the mean of the middle two for an even number.
        """
        sizes = torch.bincount(cluster, minlength=self.clusters)
        # A share of the queries varies most where each cluster lies above or below as a whole.
        far = 2 * math.sqrt(int((sizes.double() ** 2).sum())) / len(ranks)
        low, high = (_at(ranks, share) for share in (0.5 - far, 0.5 + far))
        values, place = ranks.clamp(low, high).unique(return_inverse=True)
        # Whole numbers, which float32 adds exactly.
        of_clusters = torch.zeros(self.clusters, len(values))
        of_clusters.index_put_((cluster, place), torch.ones(len(ranks)), accumulate=True)
        up_to = self.sums(of_clusters).double().cumsum(dim=1)
        half = up_to[:, -1:] / 2
        lower = (up_to < half).sum(dim=1)
        upper = (up_to <= half).sum(dim=1).clamp_max(len(values) - 1)
        medians: Tensor = (values[lower] + values[upper]).double() / 2
        return medians


def check_interval(level: float, replicates: int) -> None:
    """Refuse a level such as 95 and draws that have no spread.

    Raises:
        ValueError: for a level that is not between 0 and 1, or fewer than two replicates.
    """
    if not 0 < level < 1:
        raise ValueError(
            f"The level is the share of intervals that hold the true value, got {level}: give a "
            "number between 0 and 1, such as 0.95."
        )
    if replicates < 2:
        raise ValueError(f"An interval takes two replicates or more, got {replicates}.")


def mean_intervals(
    values: Tensor,
    cluster: Tensor,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[tuple[float, float]] | None:
    """Intervals of the means over queries of values between 0 and 1, such as hits or precisions.

    Args:
        values: ``[Q, F]``, of each query under F measures.
        cluster: ``[Q]`` integers, equal for queries of one cluster.
        level: share of intervals that hold the true mean.
        replicates: how often the clusters are drawn.
        seed: of the draws.

    Returns:
        Lowest and highest value of each measure; None for a single cluster, which says nothing of
        others.

    Raises:
        ValueError: when the lengths differ, a value or the level is not between 0 and 1, or there
            are fewer than two replicates.

    Example:
        >>> hits = (torch.arange(1_000) % 2).double()
        >>> ((low, high),) = mean_intervals(hits[:, None], torch.arange(1_000))
        >>> round(low, 2), round(high, 2)
        (0.47, 0.53)
    """
    check_interval(level, replicates)
    if values.dim() != 2 or len(values) != len(cluster):
        raise ValueError(
            f"Values are [Q, F] and clusters [Q], got {list(values.shape)} and "
            f"{list(cluster.shape)}."
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("Values must lie between 0 and 1.")
    values = values.double()
    numbers, cluster = cluster.unique(return_inverse=True)
    if len(numbers) < 2:
        return None
    draws = ClusterDraws(len(numbers), replicates=replicates, seed=seed)
    low, high = score_interval(
        values.mean(dim=0),
        draws.means(values, cluster),
        len(numbers),
        level=level,
        least=values.var(dim=0, correction=0) / len(values),
    )
    return list(zip(low.tolist(), high.tolist(), strict=True))


def score_interval(
    estimate: Tensor,
    replicates: Tensor,
    clusters: int,
    *,
    level: float = LEVEL,
    least: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The true means that lie within t standard errors of the estimate (Wilson 1927).

    The bootstrap gives the standard error at the estimate, and with it the number n of independent
    queries that would have it: ``p (1 - p) / variance``. At a mean m the standard error is then
    ``sqrt(m (1 - m) / n)``. Unlike quantiles of the replicates the interval stays in [0, 1], has a
    width where all queries are right, and holds the true value as often as it should for few clips
    and means near 0 and 1, which ``benchmarks/intervals.py`` measures.

    Args:
        estimate: ``[F]`` means, of values in [0, 1].
        replicates: ``[R, F]`` means of the replicates.
        clusters: N, at least 2. Of equal values there are as many independent ones as clusters.
        level: share of intervals that hold the true mean.
        least: ``[F]`` variance of the mean if all queries were independent: captions of one clip
            can say less than that, not more.

    Returns:
        Lowest and highest, ``[F]`` each.
    """
    spread = estimate * (1 - estimate)
    variance = replicates.var(dim=0) * clusters / (clusters - 1)
    variance = torch.maximum(variance, torch.as_tensor(least, dtype=variance.dtype))
    n = torch.where(variance > 1e-15, spread / variance, clusters)
    t2 = t_quantile(0.5 + level / 2, clusters - 1) ** 2
    middle = (estimate + t2 / (2 * n)) / (1 + t2 / n)
    half = (t2 * spread / n + (t2 / (2 * n)) ** 2).sqrt() / (1 + t2 / n)
    return (middle - half).clamp_min(0), (middle + half).clamp_max(1)


def _at(ranks: Tensor, share: float) -> int:
    """The rank that a share of queries does not exceed."""
    place = min(max(math.ceil(share * len(ranks)), 1), len(ranks))
    return int(ranks.kthvalue(place).values)
