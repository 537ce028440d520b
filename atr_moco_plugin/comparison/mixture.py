"""A mixture of Student's t: judges a variance that is the sum of parts, each estimated with its own
degrees of freedom."""

from __future__ import annotations

from collections.abc import Sequence

from atr_moco_plugin.evaluation.student import t_quantile, t_tail


def mixed_tail(t: float, weights: Sequence[float], dfs: Sequence[float]) -> float:
    """Probability of being above ``t`` where t's degrees of freedom are drawn by weight.

    The weights are the parts' shares of the variance. One number of degrees of freedom for the sum
    (Satterthwaite 1946) is too bold where a part has few: with two, 5 % become 8 %.

    Args:
        t: any number.
        weights: sum to 1.
        dfs: degrees of freedom of each, 1 or more.
    """
    return sum(weight * t_tail(t, df) for weight, df in zip(weights, dfs, strict=True) if weight)


def mixed_quantile(p: float, weights: Sequence[float], dfs: Sequence[float]) -> float:
    """The value that :func:`mixed_tail` leaves ``1 - p`` above, ``p`` from 0.5 to below 1.

    Example:
        >>> round(mixed_quantile(0.975, [0.5, 0.5], [4, 1e9]), 3)
        2.33
    """
    # It lies between those of the parts.
    ends = [t_quantile(p, df) for df in dfs]
    low, high = min(ends), max(ends)
    for _ in range(50):
        middle = (low + high) / 2
        above = mixed_tail(middle, weights, dfs) > 1 - p
        low, high = (middle, high) if above else (low, middle)
    return high
