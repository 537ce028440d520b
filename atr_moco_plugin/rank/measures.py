"""Measures of two embedding sets on the unit sphere: alignment, uniformity, modality gap."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.rank.spectrum import blocks, to_float64


@torch.no_grad()
def alignment(audio: Tensor, text: Tensor) -> float:
    """Mean squared distance of the pairs; smaller is better aligned (Wang & Isola 2020, alpha 2).

    Args:
        audio: ``[N, d]``, normalised here; row i is the partner of row i of ``text``.
        text: ``[N, d]``, normalised here.

    Returns:
        A value in [0, 4], 2 for unrelated directions.

    Raises:
        ValueError: when the shapes differ or N is 0.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2)), alignment(torch.eye(2), -torch.eye(2))
        (0.0, 4.0)
    """
    if audio.shape != text.shape or audio.dim() != 2 or len(audio) == 0:
        raise ValueError(
            "alignment expects two matrices [N, d] of pairs with N >= 1, "
            f"got {list(audio.shape)} and {list(text.shape)}."
        )
    pairs = zip(blocks(audio), blocks(text), strict=True)
    return float(sum((unit(a) - unit(t)).square().sum() for a, t in pairs)) / len(audio)


@torch.no_grad()
def uniformity(x: Tensor, t: float = 2.0, *, max_rows: int = 2048, seed: int = 0) -> float:
    """Log of the mean Gaussian potential of all pairs of rows (Wang & Isola 2020).

    ``log mean_{i<j} exp(-t |x_i - x_j|^2)``; 0 when all rows are equal, smaller is more uniform.
    The number of pairs is quadratic in the rows. So a random subset stands for more than
    ``max_rows`` rows, drawn with a generator of its own: about two million pairs by default.

    Args:
        x: ``[N, d]``, normalised here.
        t: sharpness of the potential.
        max_rows: rows used at most.
        seed: of the subset's draw.

    Raises:
        ValueError: when ``x`` is not a matrix with at least two rows.

    Example:
        >>> round(uniformity(torch.eye(2)), 6)  # one pair, at squared distance 2
        -4.0
    """
    if x.dim() != 2 or len(x) < 2 or max_rows < 2:
        raise ValueError(
            "uniformity expects a matrix [N, d] with N >= 2 and max_rows >= 2, "
            f"got {list(x.shape)} and max_rows {max_rows}."
        )
    x = unit(x[sample(len(x), max_rows, seed).to(x.device)])
    n = len(x)
    rows = 256
    later = torch.ones(rows, rows, dtype=torch.bool, device=x.device).triu(diagonal=1)
    totals = []
    for i in range(0, n, rows):
        # Every pair once: a block of rows with itself and with those behind it.
        potential = log_potential(x[i : i + rows], x[i:], t)
        own = potential[:, : len(potential)]
        own.masked_fill_(~later[: len(own), : len(own)], -math.inf)
        totals.append(potential.flatten().logsumexp(dim=0))
    return float(torch.stack(totals).logsumexp(dim=0)) - math.log(n * (n - 1) / 2)


def sample(n: int, most: int, seed: int = 0) -> Tensor:
    """Indices of all ``n`` rows, or of ``most`` random ones; ``[min(n, most)]`` int64."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]


def log_potential(x: Tensor, y: Tensor, t: float = 2.0) -> Tensor:
    """``-t |x_i - y_j|^2`` ``[N, M]`` of unit rows ``[N, d]`` and ``[M, d]``."""
    # |x - y|^2 = 2 - 2 cos on the sphere.
    return (x @ y.T).clamp_(-1, 1).sub_(1).mul_(2 * t)


@torch.no_grad()
def modality_gap(audio: Tensor, text: Tensor) -> float:
    """Distance between the mean audio and the mean text embedding (Liang et al. 2022).

    Args:
        audio: ``[N, d]``, normalised here.
        text: ``[M, d]``, normalised here.

    Returns:
        A value in [0, 2].

    Raises:
        ValueError: when a matrix has no rows or the sizes d differ.

    Example:
        >>> modality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]))
        2.0
    """
    shapes = f"{list(audio.shape)} and {list(text.shape)}"
    if audio.dim() != 2 or text.dim() != 2 or audio.size(1) != text.size(1):
        raise ValueError(f"modality_gap expects matrices [N, d] and [M, d], got {shapes}.")
    if len(audio) == 0 or len(text) == 0:
        raise ValueError(f"modality_gap expects at least one row on each side, got {shapes}.")
    means = (sum(unit(part).sum(dim=0) for part in blocks(x)) / len(x) for x in (audio, text))
    return float(torch.linalg.vector_norm(next(means) - next(means)))


def unit(x: Tensor) -> Tensor:
    """Rows of length 1 in float64, which autocast leaves alone."""
    return normalize(to_float64(x), dim=1)
