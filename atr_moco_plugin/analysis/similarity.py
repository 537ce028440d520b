"""How alike two sets of embeddings of the same items are, whatever their axes: linear CKA."""

from __future__ import annotations

from typing import NamedTuple

import torch

from atr_moco_plugin.analysis.pairs import PairedRows
from atr_moco_plugin.analysis.shared_axes import cross_covariance
from atr_moco_plugin.rank.spectrum import second_moments


class Cka(NamedTuple):
    """Linear centred kernel alignment (Kornblith et al. 2019).

    Attributes:
        linear: ``|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)`` of centred X and Y, in [0, 1].
        shuffled: its exact mean over all ways to shuffle the pairs. With fewer rows than
            dimensions unrelated embeddings are alike by this measure.
        debiased: the same with the unbiased estimate of HSIC (Song et al. 2012) in all three
            places; 0 for unrelated embeddings, at most about 1. ``None`` below four rows, or where
            an estimate of a matrix with itself is not positive.
    """

    linear: float
    shuffled: float
    debiased: float | None


@torch.no_grad()
def linear_cka(rows: PairedRows) -> Cka | None:
    """Linear CKA of both sides, in time and memory linear in the rows.

    Args:
        rows: N pairs in which no row is twice; the sizes of both sides may differ.

    Returns:
        ``None`` where a side has no variation.
    """
    n = len(rows)
    mean = rows.means()
    cross = (n * cross_covariance(rows, mean)).square().sum()
    own = [
        second_moments((x[i] - mean[i] for x in rows.blocks()), len(mean[i])).square().sum()
        for i in (0, 1)
    ]
    norm = own[0].sqrt() * own[1].sqrt()
    # Squared lengths of the centred rows: the diagonals of both Gram matrices.
    a, t = (
        torch.cat([(x[i] - mean[i]).square().sum(dim=1) for x in rows.blocks()]) for i in (0, 1)
    )
    # Equal rows less their rounded mean leave rounding errors of some 1e-16 each.
    if n < 2 or min(float(a.mean()), float(t.mean())) < 1e-24:
        return None
    unbiased = None
    if n > 3:
        ours, theirs = _hsic(own[0], a, a), _hsic(own[1], t, t)
        if min(ours, theirs) > 0:
            unbiased = _hsic(cross, a, t) / (ours * theirs) ** 0.5
    return Cka(
        linear=float(cross / norm),
        shuffled=float(a.sum() * t.sum() / (n - 1) / norm),
        debiased=unbiased,
    )


def _hsic(product: torch.Tensor, a: torch.Tensor, t: torch.Tensor) -> float:
    """The unbiased estimate, times n (n - 3), from sums.

    With K~ and L~ the Gram matrices without their diagonals a and t it is
    ``tr K~L~ + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1``. Rows of centred Gram matrices sum
    to 0, so those of K~ sum to -a and those of L~ to -t.
    """
    n = len(a)
    return float(
        product
        - (a * t).sum()
        + a.sum() * t.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (a * t).sum()
    )
