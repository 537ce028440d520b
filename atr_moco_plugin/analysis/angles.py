"""Principal angles between the subspaces in which two sets of embeddings vary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.rank.spectrum import blocks, second_moments


class PrincipalAxes(NamedTuple):
    """Directions of the largest variance.

    Attributes:
        axes: ``[d, K]`` float64, orthonormal.
        variances: ``[K]`` float64, descending, all above rounding.
    """

    axes: Tensor
    variances: Tensor

    def holding(self, share: float) -> int:
        """The smallest number of axes that hold this share of the variance."""
        held = self.variances.cumsum(dim=0) / self.variances.sum()
        # One less a rounding error is one.
        return min(int((held < share - 1e-12).sum()) + 1, len(held))


@torch.no_grad()
def principal_axes(x: Tensor) -> PrincipalAxes:
    """The eigenvectors of the covariance of the rows of ``[N, d]``."""
    rows, dim = x.shape
    mean = sum((part.sum(dim=0) for part in blocks(x)), torch.zeros(dim, dtype=torch.float64))
    mean = mean / rows
    if rows > dim:
        moments = second_moments((part - mean for part in blocks(x)), dim)
        variances, axes = torch.linalg.eigh(moments / rows)
        variances, axes = variances.flip(0), axes.flip(1)
    else:
        _, values, vt = torch.linalg.svd(x.double() - mean, full_matrices=False)
        variances, axes = values.square() / rows, vt.T
    kept = variances > 1e-12 * variances[0]
    return PrincipalAxes(axes[:, kept], variances[kept])


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between two subspaces, the smallest first.

    Small ones are taken from their sines, whose rounding does not blow up (Knyazev & Argentati
    2002), as :func:`scipy.linalg.subspace_angles` does.

    Args:
        a: ``[d, r]`` float64 with orthonormal columns.
        b: ``[d, s]`` float64 with orthonormal columns.

    Returns:
        ``[min(r, s)]`` radians, ascending, in [0, pi / 2].

    Example:
        >>> principal_angles(torch.eye(3)[:, :2], torch.eye(3)[:, 1:]).tolist()
        [0.0, 1.5707963705062866]
    """
    if a.size(1) < b.size(1):
        a, b = b, a
    product = a.T @ b
    cosines = torch.linalg.svdvals(product).clamp(0, 1)
    sines = torch.linalg.svdvals(b - a @ product).clamp(0, 1).flip(0)
    return torch.where(cosines.square() < 0.5, cosines.acos(), sines.asin())


def overlap(a: Tensor, b: Tensor) -> float:
    """Mean squared cosine of the principal angles: 1 where one subspace holds the other.

    Two random subspaces of r and s of d dimensions have ``max(r, s) / d``.

    Args:
        a: ``[d, r]`` with orthonormal columns.
        b: ``[d, s]`` with orthonormal columns.
    """
    return float((a.T @ b).square().sum()) / min(a.size(1), b.size(1))


def random_angles(dim: int, r: int, s: int) -> Tensor:
    """:func:`principal_angles` of two random subspaces of r and s of ``dim`` dimensions."""
    generator = torch.Generator().manual_seed(0)
    # A fixed subspace is as good as a random one where the other is random.
    draw = torch.randn(dim, s, generator=generator, dtype=torch.float64)
    return principal_angles(torch.eye(dim, r, dtype=torch.float64), torch.linalg.qr(draw).Q)
