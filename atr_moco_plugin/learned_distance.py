"""A learned distance as a cosine, so that whatever ranks unit vectors by cosine ranks by it.

A Mahalanobis distance ``D(a, u) = |L (a - u)|`` between unit vectors is no cosine of them. But with
s, the largest eigenvalue of ``M = L^T L``, and ``a' = L a / sqrt(s)``, which is no longer than 1,
these two are unit vectors of d + 4 numbers::

    x_a = [a' / sqrt(2), -|a'|^2 / 2,  1 / 2, sqrt(1 - (1 + |a'|^2)^2 / 4), 0]
    x_u = [u' / sqrt(2),  1 / 2, -|u'|^2 / 2, 0, sqrt(1 - (1 + |u'|^2)^2 / 4)]

and ``x_a . x_u = -|a' - u'|^2 / 4 = -D(a, u)^2 / (4 s)``: 0 for the same vector, -1 for the largest
distance that two unit vectors can have, and both directions are ranked as D ranks them. (The first
numbers are the reduction of a search by distance to one by inner product, turned around.)

May import nothing of this package but ``tensors``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.tensors.float32 import StaysFloat32, full_products

TowerSide = Literal["audio", "text"]
DistanceKind = Literal["diagonal", "full"]

EXTRA = 4
"""Numbers that a vector gets beside the d of an embedding."""


class LearnedDistance(StaysFloat32):
    """The last layer of a tower, from embeddings to vectors whose cosine is ``-D^2 / (4 s)``.

    A cosine near 0 is known to about 1e-7 in float32 and to 1e-4 where vectors are kept in float16,
    and so is ``D^2 / (4 s)``.

    Args:
        factor: ``[d, d]`` L, or ``[d]`` its diagonal; any scale, since only the order matters.
        side: whose tower it is. Cosines are between one vector of each side.
    """

    factor: Tensor

    def __init__(self, factor: Tensor, side: TowerSide) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("factor", _scaled(factor))

    def forward(self, embeddings: Tensor) -> Tensor:
        """``[B, d]`` unit-norm to ``[B, d + 4]`` unit-norm float32, whatever the autocast state."""
        with torch.autocast(embeddings.device.type, enabled=False), full_products():
            x = embeddings.float()
            x = x * self.factor if self.factor.dim() == 1 else F.linear(x, self.factor)
            square = x.square().sum(dim=1, keepdim=True)
            half, zero = torch.full_like(square, 0.5), torch.zeros_like(square)
            rest = ((1 - square) * (3 + square)).clamp(min=0).sqrt() / 2
            own = [-square / 2, half, rest, zero]
            if self.side == "text":
                own = [half, -square / 2, zero, rest]
            return torch.cat([x * math.sqrt(0.5), *own], dim=1)


def mean_vectors(sums: Tensor) -> Tensor:
    """One vector for several of one side, such as the windows of a recording: its cosine with a
    vector of the other side is the mean of theirs, minus the mean of their ``D^2 / (4 s)``.

    The mean brought to length 1 would not rank so, since the lengths of means differ. Here what is
    missing goes where vectors of the other side are 0.

    Args:
        sums: ``[N, d + 4]``, each of one or more vectors of :class:`LearnedDistance`.

    Returns:
        ``[N, d + 4]`` unit-norm float32.
    """
    audio = _of_sounds(sums)
    constant = torch.where(audio, sums[:, -3], sums[:, -4])  # 1/2 of each
    means = sums.double() / (2 * constant.double())[:, None]
    means[:, -2:] = 0
    rest = (1 - means.square().sum(dim=1)).clamp(min=0).sqrt()
    means[:, -2], means[:, -1] = rest * audio, rest * ~audio
    return means.float()


def query_vectors(vectors: Tensor) -> Tensor:
    """What finds sounds by their distance: a sentence is itself, and a sound is the sentence of the
    same embedding, of which the cosine with a sound b is ``-D(a, b)^2 / (4 s)``.

    Args:
        vectors: ``[N, d + 4]`` of :class:`LearnedDistance` or :func:`mean_vectors`, of any side.
    """
    turned = torch.cat([vectors[:, :-EXTRA], vectors[:, [-3, -4, -1, -2]]], dim=1)
    return torch.where(_of_sounds(vectors)[:, None], turned, vectors)


def _of_sounds(vectors: Tensor) -> Tensor:
    """``[N]`` bool: this number is 1/2 in a sound's vector and 0 or less in a sentence's."""
    return vectors[:, -3] > 0


def learned_factor(criterion: Any) -> Tensor | None:
    """The factor of the distance that a criterion has learned; None for one that ranks by cosine.

    Args:
        criterion: see :class:`~atr_moco_plugin.contracts.Criterion`; sharded parameters are whole.
    """
    if not hasattr(criterion, "distance_factor"):
        return None
    factor: Tensor = criterion.distance_factor(dict(criterion.named_parameters(recurse=False)))
    return factor.detach()


def distance_kind(factor: Tensor) -> DistanceKind:
    """Whether a factor is a whole matrix or its diagonal."""
    return "diagonal" if factor.dim() == 1 else "full"


def plain_factor(kind: DistanceKind, embed_dim: int) -> Tensor:
    """A factor of that kind with equal weights, which ranks as the cosine of embeddings does."""
    ones = torch.ones(embed_dim)
    return ones if kind == "diagonal" else ones.diag()


def _scaled(factor: Tensor) -> Tensor:
    """``L / sqrt(s)``, whose largest singular value is 1."""
    exact = factor.detach().double()
    if exact.dim() == 1:
        return (exact / exact.abs().amax()).float()
    scaled: Tensor = exact / torch.linalg.eigvalsh(exact.T @ exact)[-1].sqrt()
    return scaled.float()
