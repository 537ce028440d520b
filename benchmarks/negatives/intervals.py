"""Means over seeds and rank correlations, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# 97.5 % points of Student's t for 1 to 30 degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


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
    half = spread * (_T[n - 2] if n - 1 <= len(_T) else _NORMAL)
    return Interval(middle, middle - half, middle + half)


def ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1 on; equal values share the mean of theirs."""
    x = np.asarray(values, np.float64)
    less = (x[None, :] < x[:, None]).sum(1)
    equal = (x[None, :] == x[:, None]).sum(1)
    found: Floats = less + (equal + 1) / 2
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one side is all alike.

    Example:
        >>> spearman([1, 2, 3], [10, 30, 20])
        0.5
    """
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan


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
