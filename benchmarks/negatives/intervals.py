"""Means over seeds and rank correlations, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from atr_moco_plugin.evaluation.student import t_quantile


class Interval(NamedTuple):
    """A value and its 95 % interval, which is infinite where nothing is known of it."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """``12.3 (10.1 to 14.5)``, the value alone without an interval."""
        if not math.isfinite(self.high - self.low):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def mean(values: Sequence[float]) -> Interval:
    """Mean of values from a normal distribution, with Student's interval.

    Args:
        values: one at least; of one alone nothing is known.

    Example:
        >>> mean([1.0, 3.0]).text()
        '2.0 (-10.7 to 14.7)'
    """
    n = len(values)
    middle = sum(values) / n
    if n == 1:
        return Interval(middle, -math.inf, math.inf)
    spread = math.sqrt(sum((x - middle) ** 2 for x in values) / (n - 1) / n)
    half = spread * t_quantile(0.975, n - 1)
    return Interval(middle, middle - half, middle + half)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one side is all alike.

    Example:
        >>> spearman([1, 2, 3], [10, 30, 20])
        0.5
    """
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(spearmanr(x, y).statistic)


def bootstrap(
    groups: Sequence[Sequence[int]],
    statistic: Callable[[list[int]], float],
    *,
    replicates: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of rows, drawn with replacement within each group.

    Args:
        groups: numbers of rows; those of one group are drawn for each other alone.
        statistic: of a list of rows.
        replicates: number of draws; those without a value are left out.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(replicates):
        drawn = [int(x) for group in groups for x in rng.choice(group, len(group))]
        value = statistic(drawn)
        if math.isfinite(value):
            found.append(value)
    value = statistic([x for group in groups for x in group])
    if len(found) < replicates // 2:
        return Interval(value, -math.inf, math.inf)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high))
