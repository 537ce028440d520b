"""The intrinsic dimension of embeddings, from the distances to their two nearest neighbours."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_DISCARDED = 0.1
_GRID = 200_000


def two_nn(first: Tensor, second: Tensor) -> float | None:
    """The TwoNN estimate (Facco et al. 2017).

    On a manifold of dimension D the ratio ``mu = r2 / r1`` of the distances to the second and to
    the first neighbour has ``P(mu <= x) = 1 - x^-D``. D is the slope of ``-log(1 - F)`` on
    ``log mu`` through the origin, F being the empirical distribution, without the tenth of the
    largest ratios, as in the paper.

    Args:
        first: ``[Q]`` float64, r1, all above 0: rows with an equal one have no ratio.
        second: ``[Q]`` float64, r2.

    Returns:
        ``None`` with fewer than three ratios, or where all are 1.

    Example:
        >>> ratios = torch.tensor([1.0, 1.1, 1.2, 1.5, 2.0], dtype=torch.float64)
        >>> round(two_nn(torch.ones(5).double(), ratios), 3)
        4.2
    """
    logs = (second / first).log().sort().values
    n = len(logs)
    kept = min(math.ceil((1 - _DISCARDED) * n), n - 1)
    if kept < 2:
        return None
    x = logs[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / n)
    square = float(x.square().sum())
    return float((x * y).sum()) / square if square > 0 else None


def random_two_nn(rows: int, dim: int, queries: int = 2048, seed: int = 0) -> float | None:
    """:func:`two_nn` of N random unit vectors, well below ``dim - 1`` where N is not huge.

    No vectors are drawn: the share of the sphere within an angle of a point has the density
    ``sin(angle)^(d - 2)``, and the shares of the two nearest of N - 1 others are order statistics
    of uniform numbers.

    Args:
        rows: N, at least 3.
        dim: d, at least 2.
        queries: points to draw.
        seed: of the draw.
    """
    angles = np.linspace(0, math.pi, _GRID + 1)
    with np.errstate(divide="ignore"):
        logs = (dim - 2) * np.log(np.sin(angles[1:-1]))
    density = np.concatenate([[float(dim == 2)], np.exp(logs - logs.max()), [float(dim == 2)]])
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    share /= share[-1]
    rng = np.random.default_rng(seed)
    others = rows - 1
    # The least of n uniform numbers, and the least of the others above it.
    least = -np.expm1(np.log(rng.random(queries)) / others)
    next_least = least + (1 - least) * -np.expm1(np.log(rng.random(queries)) / (others - 1))
    # Densities underflow to 0 near the poles, where there is nothing to look up.
    start = int(np.searchsorted(share, 0.0, side="right")) - 1
    first, second = (
        torch.from_numpy(2 * np.sin(np.interp(u, share[start:], angles[start:]) / 2))
        for u in (least, next_least)
    )
    return two_nn(first, second)
