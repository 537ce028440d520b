"""How sure a difference between two sides is: its interval, and the chance of one as large between
equals.

A side is a recipe, seen through one run or through several seeds. Clips are the same for all runs;
so runs and clips cross, as readers and cases do in studies of diagnoses, and so does what is known
about them (Dorfman, Berbaum and Metz 1992; Hillis 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atr_moco_plugin.comparison.measures import Measures, Run, Values
from atr_moco_plugin.evaluation.student import t_quantile, t_tail

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
    measures: Measures, ours: Sequence[Run], base: Sequence[Run], settings: Settings
) -> Difference:
    """Compare two sides on the same queries.

    Of one run a side, the question is about these two trained models on other clips: the interval
    is a bootstrap over clusters, the test exchanges what the two got on random clusters. Of several
    runs, it is about their recipes, on other clips and with other seeds: runs are drawn first and
    then clusters, the same for every run. Both draws of the bootstrap are too narrow for few runs,
    so that the interval takes its shape from the draws and its width from the components of the
    variance, and the test is Student's t on them. Where one side has one run, its seeds are taken
    to vary as those of the other side.

    Args:
        measures: the figures.
        ours: the runs of a side.
        base: the runs of the side that it is compared with.
        settings: how much is drawn.
    """
    rng = np.random.default_rng(settings.seed)
    drawn = _draw(measures, [*ours, *base], settings.replicates, rng)  # [runs, R, F]
    plain = np.ones((1, measures.clusters))
    points = np.stack([measures.figures(run, plain)[0] for run in (*ours, *base)])
    of_ours, of_base = points[: len(ours)], points[len(ours) :]
    difference = _rounded(of_ours.mean(axis=0) - of_base.mean(axis=0))

    sides = (drawn[: len(ours)], drawn[len(ours) :])
    moved = _rounded(_seeds_drawn(sides[0], rng) - _seeds_drawn(sides[1], rng) - difference)
    variance, df = _variance(sides, (of_ours, of_base), measures)
    # What the draws vary by, against what they should.
    spread = moved.std(axis=0, ddof=1)
    scale = np.divide(np.sqrt(variance), spread, out=np.zeros_like(spread), where=spread > 0)
    scale *= np.array([t_quantile(0.975, x) for x in df]) / _NORMAL
    if len(ours) == len(base) == 1:
        # Medians of ranks are whole or halves, and the draws have them as they are.
        scale[[name.endswith("medr") for name in measures.names]] = 1
    low, high = np.quantile(moved, [0.025, 0.975], axis=0) * scale
    if len(ours) == len(base) == 1:
        p = _exchange(measures, ours[0], base[0], difference, settings, rng)
    else:
        p = _t_test(difference, variance, df)
    return Difference(
        of_base.mean(axis=0),
        of_ours.mean(axis=0),
        difference,
        difference + np.minimum(low, 0),
        difference + np.maximum(high, 0),
        p,
    )


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
    drawn: tuple[Values, Values], points: tuple[Values, Values], measures: Measures
) -> tuple[Values, Values]:
    """Variance ``[F]`` of the difference over clips and seeds, and its degrees of freedom.

    What the mean over the runs varies by from clip to clip has the interaction of runs and clips
    in it, and so has what runs vary by: once it is taken off.
    """
    # The variance of a resampled mean of n is too small by (n - 1) / n.
    n = min(measures.strata)
    unbiased = n / (n - 1)
    apart = _rounded(drawn[0].mean(axis=0) - drawn[1].mean(axis=0))
    clips = apart.var(axis=0, ddof=1) * unbiased
    components = [(clips, n - 1)]
    seeds = np.zeros_like(clips)
    sizes = [len(of_side) for of_side in points]
    for side, (of_side, draws) in enumerate(zip(points, drawn, strict=True)):
        runs, others = sizes[side], sizes[1 - side]
        if runs == 1:
            continue
        # A side of one run borrows the variance of the other side.
        means = 1 / runs + (1 if others == 1 else 0)
        between = of_side.var(axis=0, ddof=1) * means
        crossed = (draws - draws.mean(axis=0)).var(axis=1, ddof=1).sum(axis=0) / (runs - 1)
        seeds += np.maximum(between - crossed * unbiased * means, 0)
        components.append((between, runs - 1))
    total = sum(part for part, _ in components)
    squares = sum(part**2 / df for part, df in components)
    df = np.divide(total**2, squares, out=np.full_like(clips, n - 1), where=squares > 0)
    return clips + seeds, df


def _rounded(apart: Values) -> Values:
    """Differences of sums in another order are no differences: they are in the last bits."""
    return np.where(np.abs(apart) < _LAST_BITS, 0.0, apart)


def _t_test(difference: Values, variance: Values, df: Values) -> Values:
    return np.array(
        [
            1.0 if apart == 0 else 2 * t_tail(apart / np.sqrt(of), freedom) if of > 0 else 0.0
            for apart, of, freedom in zip(np.abs(difference), variance, df, strict=True)
        ]
    )


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
