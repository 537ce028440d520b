"""How sure a difference between two sides is: its interval, and the chance of one as large between
equals.

A side is a recipe, seen through one run or through several seeds. Clips are the same for all runs;
so runs and clips cross, as readers and cases do in studies of diagnoses, and so does what is known
about them (Dorfman, Berbaum and Metz 1992; Hillis 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.comparison.agreement import (
    FEW,
    agreed_interval,
    clusters_apart,
    clusters_of,
    medians_apart,
    medians_moved,
    sign_test,
)
from atr_moco_plugin.comparison.measures import Measures, Run, Values
from atr_moco_plugin.comparison.mixture import mixed_quantile, mixed_tail
from atr_moco_plugin.evaluation.student import t_quantile

_NORMAL = t_quantile(0.975, 1e9)
_LAST_BITS = 1e-9


@dataclass(frozen=True)
class Settings:
    """How much is drawn.

    Attributes:
        replicates: draws of the bootstrap.
        flips: draws of the randomisation test.
        seed: of both.
    """

    replicates: int = 5_000
    flips: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Difference:
    """The figures of one side minus those of another, each an array ``[F]``.

    Attributes:
        base: figures of the side that is compared with, means over its runs.
        ours: of the other.
        difference: ``ours - base``.
        low: where the 95 % interval of the difference starts.
        high: where it ends.
        p: probability of a difference at least as large, to either side, between equals.
    """

    base: Values
    ours: Values
    difference: Values
    low: Values
    high: Values
    p: Values


def compare_sides(
    measures: Measures,
    ours: Sequence[Run],
    base: Sequence[Run],
    settings: Settings,
    *,
    paired: bool = False,
) -> Difference:
    """Compare two sides on the same queries.

    Of one run a side, the question is about these two trained models on other clips: the interval
    is a bootstrap over clusters, the test exchanges what the two got on random clusters. Of several
    runs, it is about their recipes, on other clips and with other seeds: runs are drawn first and
    then clusters, the same for every run. Both draws of the bootstrap are too narrow for few runs,
    so that the interval takes its shape from the draws and its width from the components of the
    variance, and the test is Student's t on them. All sides are taken to vary alike from seed to
    seed, a side of one run too.

    Args:
        measures: the figures.
        ours: the runs of a side.
        base: the runs of the side that it is compared with.
        settings: how much is drawn.
        paired: whether each run of ``ours`` and the one in its place in ``base`` are one trained
            model, as where its results are re-ranked: seeds are drawn for both sides together then.
    """
    rng = np.random.default_rng(settings.seed)
    drawn = _draw(measures, [*ours, *base], settings.replicates, rng)  # [runs, R, F]
    plain = np.ones((1, measures.clusters))
    points = np.stack([measures.figures(run, plain)[0] for run in (*ours, *base)])
    of_ours, of_base = points[: len(ours)], points[len(ours) :]
    difference = _rounded(of_ours.mean(axis=0) - of_base.mean(axis=0))

    # Groups of runs whose means add up to the difference.
    if paired:
        groups, values = [drawn[: len(ours)] - drawn[len(ours) :]], [of_ours - of_base]
    else:
        groups, values = [drawn[: len(ours)], -drawn[len(ours) :]], [of_ours, -of_base]
    moved = _rounded(sum(_seeds_drawn(group, rng) for group in groups) - difference)
    df = sum(map(len, values)) - len(values)
    variance, share = _variance(groups, values, df, measures)
    clusters = clusters_of(measures)
    dfs = [(int(n) - 1, max(df, 1)) for n in clusters]
    # What the draws vary by, against what they should.
    spread = moved.std(axis=0, ddof=1)
    scale = np.divide(np.sqrt(variance), spread, out=np.zeros_like(spread), where=spread > 0)
    scale *= [
        mixed_quantile(0.975, (1 - w, w), of) / _NORMAL for w, of in zip(share, dfs, strict=True)
    ]
    medians = _medians(measures)
    if df == 0:
        # Medians of ranks are whole or halves, and the draws have them as they are.
        scale[medians] = 1
    low, high = np.quantile(moved, [0.025, 0.975], axis=0) * scale
    differing = clusters_apart(measures, ours, base)
    if df == 0:
        p = _exchange(measures, ours[0], base[0], difference, settings, rng)
    else:
        p = _t_test(difference, variance, share, dfs)
    # No test of so few clusters has a smaller one, but for the chance of its draws.
    p = np.where(difference == 0, p, np.maximum(p, sign_test(differing)))
    # Student's t with few degrees of freedom reaches beyond what a difference can be.
    most = measures.most
    low = np.maximum(difference + np.minimum(low, 0), -most)
    high = np.minimum(difference + np.maximum(high, 0), most)
    # Draws of clusters that all say the same do not vary, which makes nothing certain; nor do those
    # of a few others, whose interval is no narrower and has 0 in it, as no test of them has p 5 %.
    alike, few = spread == 0, differing < FEW
    median = alike & medians & ~few
    of_sides = (drawn[: len(ours)], drawn[len(ours) :])
    low[median], high[median] = medians_apart(*(x[:, :, median].mean(axis=0) for x in of_sides))
    mean = (alike | few) & ~medians
    ends = agreed_interval(difference[mean], most[mean], clusters[mean])
    low[mean], high[mean] = np.minimum(low[mean], ends[0]), np.maximum(high[mean], ends[1])
    room = np.where(few, medians_moved(measures, (*ours, *base)), 0)
    low, high = np.minimum(low, difference - room), np.maximum(high, difference + room)
    low[few], high[few] = np.minimum(low[few], 0), np.maximum(high[few], 0)
    return Difference(of_base.mean(axis=0), of_ours.mean(axis=0), difference, low, high, p)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): with those below 5 % called differences, at
    most one family of tests in twenty calls any difference that is none.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        corrected[number] = largest
    return corrected


def _draw(measures: Measures, runs: Sequence[Run], number: int, rng: np.random.Generator) -> Values:
    """Figures ``[runs, number, F]`` on drawn clusters, the same clusters for every run."""
    blocks = [
        np.stack([measures.figures(run, weights) for run in runs])
        for weights in measures.draws(number, rng)
    ]
    return np.concatenate(blocks, axis=1)


def _seeds_drawn(drawn: Values, rng: np.random.Generator) -> Values:
    """Means ``[R, F]`` over runs that are drawn with replacement, one fewer than there are: so
    their mean varies as that of the runs does (Rao and Wu 1988)."""
    runs, number, _ = drawn.shape
    chosen = rng.integers(0, runs, (max(runs - 1, 1), number))
    means: Values = drawn[chosen, np.arange(number)].mean(axis=0)
    return means


def _variance(
    groups: Sequence[Values], values: Sequence[Values], df: int, measures: Measures
) -> tuple[Values, Values]:
    """Variance ``[F]`` of the sum of the groups' means, and the share of it that is over seeds.

    Both what the means vary by from clip to clip and what runs vary by have in them that each seed
    finds other clips hard. It is taken off the first: off the second, which few runs tell roughly,
    it would leave nothing too often. All groups share one variance over seeds, which a group of one
    run cannot tell.
    """
    # The variance of a resampled mean of n is too small by (n - 1) / n.
    n = clusters_of(measures)
    unbiased = n / (n - 1)
    apart: Values = _rounded(sum(group.mean(axis=0) for group in groups))
    clips = apart.var(axis=0, ddof=1) * unbiased
    if df == 0:
        return clips, np.zeros_like(clips)
    between, crossed, means = np.zeros_like(clips), np.zeros_like(clips), 0.0
    for of_group, draws in zip(values, groups, strict=True):
        between += ((of_group - of_group.mean(axis=0)) ** 2).sum(axis=0) / df
        crossed += (draws - draws.mean(axis=0)).var(axis=1, ddof=1).sum(axis=0) / df
        means += 1 / len(of_group)
    # Medians are whole numbers or halves: those of a few runs often agree, which tells nothing.
    crossed[_medians(measures)] = 0
    seeds = between * means
    both = np.maximum(clips - crossed * unbiased * means, 0) + seeds
    # Where nothing is left, the means of the seeds agree by chance: they vary as the clips do.
    both = np.where(both > 0, both, np.maximum(clips, crossed * unbiased * means))
    share = np.divide(seeds, both, out=np.zeros_like(both), where=both > 0)
    return both, share


def _medians(measures: Measures) -> NDArray[np.bool_]:
    return np.array([name.endswith("medr") for name in measures.names])


def _rounded(apart: Any) -> Values:
    """Differences of sums in another order are no differences: they are in the last bits."""
    return np.where(np.abs(apart) < _LAST_BITS, 0.0, apart)


def _t_test(
    difference: Values,
    variance: Values,
    share: Values,
    dfs: Sequence[tuple[int, int]],
) -> Values:
    """p-values ``[F]`` where a share of the variance is that over seeds; 0 of a difference without
    a variance."""
    found = np.where(difference == 0, 1.0, 0.0)
    for n in np.flatnonzero((difference != 0) & (variance > 0)):
        t = abs(difference[n]) / np.sqrt(variance[n])
        found[n] = 2 * mixed_tail(t, (1 - share[n], share[n]), dfs[n])
    return found


def _exchange(
    measures: Measures,
    ours: Run,
    base: Run,
    difference: Values,
    settings: Settings,
    rng: np.random.Generator,
) -> Values:
    """Share ``[F]`` of exchanges after which two runs differ as much as they do, these included."""
    least = np.abs(difference) - _LAST_BITS
    as_large = np.ones_like(difference)
    for flips in measures.flips(settings.flips, rng):
        as_large += (np.abs(measures.exchanged(ours, base, flips)) >= least).sum(axis=0)
    return as_large / (settings.flips + 1)
