"""Singular values of an embedding matrix and the rank measures they give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

NORMALIZERS = ("max", "sum", "l2")

# Singular values below this share of the largest are rounding noise of the Gram matrix; a power
# law fitted through them would describe the arithmetic, not the embeddings.
_ALPHA_FLOOR = 1e-5

# Singular values below this share of the largest uncentred one are rounding errors of the second
# moments. For 65,536 equal rows, with running sums over nine rewrites, the centred eigenvalues were
# off by at most 17 eps of the largest; squared, this floor is about 1,000 eps.
_MOMENT_FLOOR = 2.0**-21

# Rows converted to float64 at a time, few enough for a processor's cache, and columns of a block of
# x^T x, of which only the upper half is computed.
_ROWS, _COLUMNS = 2048, 64


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

    def measures(self) -> dict[str, float | None]:
        """The five measures by name, ready for JSON: ``None`` for one that is not defined."""
        values = {field.name: getattr(self, field.name) for field in fields(RankMeasures)}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def to_float64(x: Tensor) -> Tensor:
    """The values in float64, on the CPU where the device has no float64 (Apple's GPUs)."""
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    return x.detach().to(device, torch.float64)


def blocks(x: Tensor) -> Iterator[Tensor]:
    """The rows of ``[N, d]`` in float64, a block at a time, so that no copy of all is made."""
    return (to_float64(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS))


def second_moments(parts: Iterable[Tensor], dim: int) -> Tensor:
    """``sum x x^T`` of all rows of some blocks.

    Args:
        parts: ``[n, d]`` float64 each, at least one.
        dim: d.

    Returns:
        ``[d, d]`` float64.
    """
    gram = None
    for x in parts:
        if gram is None:
            gram = x.new_zeros(dim, dim)
        for i in range(0, dim, _COLUMNS):
            # From the diagonal on: the other half is the same.
            gram[i : i + _COLUMNS, i:].addmm_(x[:, i : i + _COLUMNS].T, x[:, i:])
    if gram is None:
        raise ValueError("second_moments needs at least one block of rows.")
    return gram.triu() + gram.triu(1).T


def spectra_of_moments(rows: int, total: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values of a matrix and of the same less its mean row, from the sums of its rows.

    Args:
        rows: N, more than d.
        total: ``[d]`` float64, the sum of the rows.
        gram: ``[d, d]`` float64, ``sum x x^T``.

    Returns:
        Raw and centred, ``[d]`` float64 each, descending. They differ from the singular values of
        the matrix itself by at most 1e-6 of the largest raw one. Values below 5e-7 of the largest
        raw one are 0: where all rows are equal, ``sum x x^T - N mu mu^T`` has nothing but rounding
        errors, which would read as a full rank.
    """
    centered = gram - torch.outer(total, total / rows)
    # Matrices as small as these are done sooner by the processor than by a GPU.
    spectra = torch.stack([gram, centered]).cpu()
    raw, centered = torch.linalg.eigvalsh(spectra).flip(1).clamp_min(0).sqrt()
    floor = _MOMENT_FLOOR * raw[0]
    return torch.where(raw > floor, raw, 0.0), torch.where(centered > floor, centered, 0.0)


def singular_values(embeddings: Tensor, *, center: bool = False) -> Tensor:
    """Singular values, in float64 through the Gram matrix of the smaller side.

    Args:
        embeddings: ``[N, d]``, finite.
        center: whether to subtract the mean row first.

    Returns:
        ``[min(N, d)]`` float64, descending. They differ from ``torch.linalg.svdvals`` by at most
        1e-6 of the largest.
    """
    rows, dim = embeddings.shape
    if embeddings.numel() == 0:
        return to_float64(embeddings).new_zeros(min(rows, dim))
    if rows > dim:
        parts = blocks(embeddings)
        mean = to_float64(embeddings[:1]).new_zeros(dim)
        if center:
            mean = sum((x.sum(dim=0) for x in parts), mean) / rows
            parts = (x - mean for x in blocks(embeddings))
        gram = second_moments(parts, dim)
        square = gram.trace() + rows * mean.square().sum()
    else:
        x = to_float64(embeddings)
        square = x.square().sum()
        x = x - x.mean(dim=0) if center else x
        gram = x @ x.T
    # Equal rows minus their rounded mean leave rounding errors, which would read as a full rank.
    # The floor is numpy.linalg.matrix_rank's, of the matrix before its mean is removed.
    floor = max(rows, dim) * torch.finfo(torch.float64).eps * square.sqrt()
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
        normalizer: divides the values before they are counted: ``"max"``, ``"sum"`` or ``"l2"``.
        threshold: a normalised value above it is counted.

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
