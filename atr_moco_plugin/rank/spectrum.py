"""Singular values of an embedding matrix and the rank measures they give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NORMALIZERS = ("max", "sum", "l2")

# Singular values below this share of the largest are rounding noise of the Gram matrix; a power
# law fitted through them would describe the arithmetic, not the embeddings.
_ALPHA_FLOOR = 1e-5


@dataclass(frozen=True)
class RankMeasures:
    """Rank measures of one spectrum sigma_1 >= ... >= sigma_K; all but ``count`` ignore its scale.

    A matrix without any variation (all zeros, or no rows) has 0 for all, and no ``alpha_req``.

    Attributes:
        count: how many normalised singular values exceed the threshold.
        rankme: exp of the entropy of ``p = sigma / sum(sigma)``: the effective rank of Roy &
            Vetterli (2007), called RankMe by Garrido et al. (2023). Epsilon is 0, with
            ``0 log 0 = 0``, so that it never exceeds K; the epsilon of 1e-7 that Garrido et al.
            add to every p changes it by less than one part in a thousand at K = 256.
        stable_rank: ``sum(sigma^2) / sigma_1^2``.
        participation_ratio: ``sum(sigma^2)^2 / sum(sigma^4)``, that is, over squared singular
            values (the eigenvalues of the second-moment matrix).
        alpha_req: alpha of the power law ``sigma_i^2 ~ i^-alpha`` (Agrawal et al. 2022): least
            squares of ``log sigma_i^2`` on ``log i`` with weights ``1/i`` (Stringer et al. 2019),
            over all ranks i from 1 to the last with ``sigma_i > 1e-5 sigma_1``. 0 is a flat
            spectrum. NaN with fewer than two such ranks.
    """

    count: float
    rankme: float
    stable_rank: float
    participation_ratio: float
    alpha_req: float


def to_float64(x: Tensor) -> Tensor:
    """The values in float64, on the CPU where the device has no float64 (Apple's GPUs)."""
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    return x.detach().to(device, torch.float64)


def singular_values(embeddings: Tensor, *, center: bool = False) -> Tensor:
    """Singular values, in float64 through the Gram matrix of the smaller side.

    Args:
        embeddings: ``[N, d]``, finite.
        center: whether to subtract the mean row first.

    Returns:
        ``[min(N, d)]`` float64, descending. They are within 1e-6 of the largest one of
        ``torch.linalg.svdvals``.
    """
    x = to_float64(embeddings)
    if x.numel() == 0:
        return x.new_zeros(min(x.shape))
    # Equal rows minus their rounded mean leave a residue of rounding errors, which would read as
    # a full rank. The floor is that of numpy.linalg.matrix_rank, from before the mean is removed.
    floor = max(x.shape) * torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(x)
    if center:
        x = x - x.mean(dim=0)
    gram = x.T @ x if x.size(0) > x.size(1) else x @ x.T
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()
    return torch.where(values > floor, values, 0.0)


def normalize(values: Tensor, normalizer: str) -> Tensor:
    """Divide a spectrum by its largest value, its sum or its l2 norm; zeros stay zeros.

    Args:
        values: ``[K]`` descending, non-negative.
        normalizer: ``"max"``, ``"sum"`` or ``"l2"``.

    Raises:
        ValueError: for another normaliser.
    """
    if normalizer == "max":
        scale = values[:1].sum()
    elif normalizer == "sum":
        scale = values.sum()
    elif normalizer == "l2":
        scale = torch.linalg.vector_norm(values)
    else:
        raise ValueError(
            f"Unknown normalizer {normalizer!r}; expected one of {', '.join(NORMALIZERS)}."
        )
    return values / scale if scale > 0 else values


def spectrum_measures(values: Tensor, *, normalizer: str, threshold: float) -> RankMeasures:
    """Rank measures of a spectrum.

    Args:
        values: ``[K]`` float64 singular values, descending.
        normalizer: what ``count`` divides by: ``"max"``, ``"sum"`` or ``"l2"``.
        threshold: what the normalised values have to exceed to be counted.

    Raises:
        ValueError: for another normaliser.
    """
    count = int((normalize(values, normalizer) > threshold).sum())
    relative = normalize(values, "max")
    if not bool((relative > 0).any()):
        return RankMeasures(0, 0.0, 0.0, 0.0, float("nan"))
    p = normalize(values, "sum")
    energy = relative.square()
    return RankMeasures(
        count=count,
        rankme=float(torch.special.entr(p).sum().exp()),
        stable_rank=float(energy.sum()),
        participation_ratio=float(energy.sum().square() / energy.square().sum()),
        alpha_req=_alpha_req(relative),
    )


def _alpha_req(relative: Tensor) -> float:
    kept = relative[relative > _ALPHA_FLOOR]
    if len(kept) < 2:
        return float("nan")
    rank = torch.arange(1, len(kept) + 1, dtype=kept.dtype, device=kept.device)
    weight = 1 / rank
    weight = weight / weight.sum()
    x, y = rank.log(), 2 * kept.log()
    x_centered = x - (weight * x).sum()
    slope = (weight * x_centered * y).sum() / (weight * x_centered.square()).sum()
    # 0.0 - slope, so that a flat spectrum gives 0 and not -0.
    return 0.0 - float(slope)
