"""How sure two sides are to be alike where every clip says the same, so that draws of clips say
nothing of what other clips would say."""

from __future__ import annotations

import numpy as np

from atr_moco_plugin.comparison.measures import Values

_TAIL = 0.025


def agreed_interval(difference: Values, most: Values, clusters: int) -> tuple[Values, Values]:
    """The 95 % interval of differences of means where all clusters differ by the same.

    The share of all clusters that differ by something else is at most ``1 - 0.025 ** (1 / n)``,
    about 3.7 / n (Clopper and Pearson 1934, for none of n), and those differ by ``most`` at most.

    Args:
        difference: ``[F]``, what every cluster differs by.
        most: ``[F]``, the largest difference, to either side.
        clusters: n, how many there are.

    Returns:
        Lowest and highest, ``[F]`` each.

    Example:
        >>> low, high = agreed_interval(np.array([0.0]), np.array([100.0]), 100)
        >>> print(low.round(1), high.round(1))
        [-3.6] [3.6]
    """
    share = 1 - _TAIL ** (1 / clusters)
    return difference - share * (most + difference), difference + share * (most - difference)


def medians_apart(ours: Values, base: Values) -> tuple[Values, Values]:
    """The 95 % interval of differences of medians that agree in all draws of the same clusters:
    from what each side's median could be by itself.

    Args:
        ours: ``[R, F]`` medians of the draws.
        base: of the other side.

    Returns:
        Lowest and highest, ``[F]`` each.
    """
    low = [np.quantile(side, _TAIL, axis=0, method="lower") for side in (ours, base)]
    high = [np.quantile(side, 1 - _TAIL, axis=0, method="higher") for side in (ours, base)]
    return low[0] - high[1], high[0] - low[1]


def sign_test(clusters: int) -> float:
    """The p-value of n clusters that all differ to one side."""
    return min(1.0, 2.0 ** (1 - clusters))
