"""How far the rows of a queue tell their age: while weights drift, more than their content."""

from __future__ import annotations

import torch
from torch import Tensor

GROUPS = 4
"""Groups of rows by age. Of a steady drift four see 15/16, two would see 3/4; with more of them
the noise of each mean counts for more."""


def age_share(rows: Tensor, groups: int = GROUPS) -> float:
    """The share of the variance of embeddings that their age explains: omega squared of a one-way
    analysis of variance (Hays 1963), summed over the dimensions.

    The rows are cut into groups of one age. With ``SSB`` the squared distances of the groups' means
    from the mean of all, one for each row, and ``MSW`` the variance within groups::

        omega^2 = (SSB - (G - 1) MSW) / (SSB + SSW + MSW)

    The second term of the numerator is what the means differ by chance, so rows in random order
    have 0 in the mean, and may have a little less.

    It sees what moves the mean of the embeddings. A rotation about the mean leaves it at 0. And it
    cannot tell age from an order of the data: rows of one class after the other have a high share.

    Args:
        rows: ``[N, d]`` float, about unit-norm, oldest first; at least two for each group. What is
            left over at the old end takes no part.
        groups: G.

    Returns:
        At most 1; 0 where the rows do not vary at all.

    Example:
        >>> rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> drift = torch.arange(64)[:, None] / 16
        >>> round(age_share(rows), 2), round(age_share(rows + drift), 2)
        (-0.01, 0.55)
    """
    size = len(rows) // groups
    rows = rows[len(rows) - groups * size :]
    # No copy of a large queue in float64; its rows are of length 1, so the squares lose nothing.
    means = rows.unflatten(0, (groups, size)).mean(dim=1, dtype=torch.float64)
    between = size * (means - means.mean(dim=0)).square().sum()
    squares = torch.linalg.vector_norm(rows, dim=1).double().square().sum()
    within = (squares - size * means.square().sum()).clamp(min=0)
    noise = within / (groups * (size - 1))
    total = between + within + noise
    return float((between - (groups - 1) * noise) / total) if total > 0 else 0.0
