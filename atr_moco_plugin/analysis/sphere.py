"""What distances on the sphere are for vectors that nothing connects."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import PairedRows


def random_uniformity(dim: int, t: float = 2.0) -> float:
    """:func:`~atr_moco_plugin.rank.measures.uniformity` of random unit vectors, in closed form.

    ``log E exp(-t |x - y|^2) = -2 t + log 0F1(; d / 2; t^2)``, the least that many rows can have.

    Example:
        >>> round(random_uniformity(512), 4)
        -3.9844
    """
    term = total = 1.0
    step = 0
    while term > 1e-17 * total:
        step += 1
        term *= t * t / (step * (dim / 2 + step - 1))
        total += term
    return math.log(total) - 2 * t


def random_gap(means: tuple[Tensor, Tensor], rows: tuple[int, int]) -> float:
    """The modality gap that sampling alone makes, where both sides have the same true mean.

    Unit rows with the mean mu have the variance ``1 - |mu|^2``; the means of N and M independent
    rows are ``sqrt((1 - |mu_a|^2) / N + (1 - |mu_t|^2) / M)`` apart (root mean square).

    Args:
        means: the mean rows of length 1 or less, ``[d]``.
        rows: N and M.
    """
    return math.sqrt(
        sum(
            max(1 - float(mean.square().sum()), 0.0) / n
            for mean, n in zip(means, rows, strict=True)
        )
    )


class PairedAlignment(NamedTuple):
    """How close pairs are.

    Attributes:
        value: :func:`~atr_moco_plugin.rank.measures.alignment`, the mean squared distance.
        shuffled: its mean over all ways to shuffle the pairs.
        error: standard error of ``value``, as if pairs were independent.
    """

    value: float
    shuffled: float
    error: float

    @property
    def closer(self) -> bool:
        """Whether pairs are closer than shuffled ones beyond doubt: by three standard errors."""
        return self.shuffled - self.value > 3 * self.error


def paired_alignment(rows: PairedRows) -> PairedAlignment:
    """Compare pairs with shuffled ones.

    Args:
        rows: both of the same size d, of length 1; at least one pair.
    """
    squares = torch.cat([(a - t).square().sum(dim=1) for a, t in rows.blocks()])
    audio, text = rows.means()
    return PairedAlignment(
        value=float(squares.mean()),
        shuffled=2 - 2 * float(audio @ text),
        error=float(squares.std(correction=0)) / math.sqrt(len(rows)),
    )


def mean_row(x: Tensor) -> Tensor:
    """The mean of the rows of ``[N, d]``, ``[d]`` float64, in blocks."""
    total = torch.zeros(x.size(1), dtype=torch.float64)
    for part in x.split(4096):
        total += part.double().sum(dim=0)
    return total / len(x)
