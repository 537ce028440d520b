"""Student's t distribution, since neither torch nor numpy has its quantiles."""

from __future__ import annotations

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def t_tail(t: float, df: float) -> float:
    """Probability that Student's t with ``df`` degrees of freedom is above ``t``.

    With ``t = sqrt(df) tan(u)`` the density becomes a power of a cosine, whose integral over the
    tail a Gauss-Legendre rule takes to about 1e-9.

    Args:
        t: any number; infinity has nothing above it.
        df: above 0, not only whole numbers.

    Example:
        >>> round(t_tail(2.776445, 4), 6)
        0.025
    """
    if t < 0:
        return 1 - t_tail(-t, df)
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    # Beyond forty standard widths of the peak there is nothing that a float64 could hold.
    start = math.atan2(t, math.sqrt(df))
    stop = min(math.pi / 2, start + 40 / math.sqrt(df))
    if stop <= start:
        return 0.0
    half = (stop - start) / 2
    angles = start + half * (_NODES + 1)
    return float(constant * half * (_WEIGHTS * np.cos(angles).clip(0) ** (df - 1)).sum())


def t_quantile(p: float, df: float) -> float:
    """The value that Student's t is below with probability ``p``, from 0.5 up.

    Args:
        p: from 0.5 to below 1.
        df: degrees of freedom, above 0.

    Raises:
        ValueError: for another ``p``, which no value would be found for.

    Example:
        >>> round(t_quantile(0.975, 4), 3), round(t_quantile(0.975, 1e9), 3)
        (2.776, 1.96)
    """
    if not 0.5 <= p < 1:
        raise ValueError(f"Quantiles are of probabilities from 0.5 to below 1, got {p}.")
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - p:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > 1 - p else (low, middle)
    return high
