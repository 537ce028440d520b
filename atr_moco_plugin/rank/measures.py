"""Measures of two embedding sets on the unit sphere: alignment, uniformity, modality gap."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.rank.spectrum import to_float64


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
    return float((_unit(audio) - _unit(text)).square().sum(dim=1).mean())


@torch.no_grad()
def uniformity(x: Tensor, t: float = 2.0, *, max_rows: int = 2048, seed: int = 0) -> float:
    """Log of the mean Gaussian potential of all pairs of rows (Wang & Isola 2020).

    ``log mean_{i<j} exp(-t |x_i - x_j|^2)``; 0 when all rows are equal, smaller is more uniform.
    The number of pairs is quadratic, so that of more than ``max_rows`` rows a random subset,
    drawn with a generator of its own, stands for all: about two million pairs at most by default.

    Args:
        x: ``[N, d]``, normalised here.
        t: sharpness of the potential.
        max_rows: rows used at most.
        seed: of the draw of the subset.

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
    if len(x) > max_rows:
        generator = torch.Generator().manual_seed(seed)
        x = x[torch.randperm(len(x), generator=generator)[:max_rows].to(x.device)]
    x = _unit(x)
    n = len(x)
    cosine = (x @ x.T).clamp(-1, 1)
    upper = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(diagonal=1)
    # |x - y|^2 = 2 - 2 cos on the sphere.
    total = (-t * (2 - 2 * cosine[upper])).logsumexp(dim=0)
    return float(total) - math.log(n * (n - 1) / 2)


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
    return float(torch.linalg.vector_norm(_unit(audio).mean(dim=0) - _unit(text).mean(dim=0)))


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1 in float64, which autocast leaves alone."""
    return normalize(to_float64(x), dim=1)
