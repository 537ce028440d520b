"""Embeddings as rows of length 1, and what was found on the way to that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError, listed

_ROWS = 4096
# Rows of length 1 in float32 are off by some 1e-7; more is somebody else's scale.
_ROUNDING = 1e-5
_HALF_ROUNDING = 2e-3


class UnitRows(NamedTuple):
    """One checked matrix of embeddings.

    Attributes:
        rows: ``[N, d]`` of length 1 on the CPU, float64 if the embeddings were, else float32.
        about: what the report says of the matrix: ``rows``, ``dim``, ``shortest`` and ``longest``
            length that the rows had, and the numbers of ``constant_columns``.
        notes: sentences on what a reader must know of it.
    """

    rows: Tensor
    about: dict[str, float]
    notes: list[str]


@torch.no_grad()
def unit_rows(embeddings: Tensor, name: str) -> UnitRows:
    """Check a matrix of embeddings and scale its rows to length 1, as a search by cosine does.

    Args:
        embeddings: ``[N, d]`` real numbers on any device, N and d at least 2.
        name: of the matrix, in messages.

    Raises:
        InputError: when it is no such matrix, a row is not finite or has no direction (length 0),
            or all rows have the same direction.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "audio").rows.tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    x = embeddings.detach().cpu()
    _check_shape(x, name)
    n = len(x)
    lengths = torch.empty(n, dtype=torch.float64)
    low = torch.full((x.size(1),), float("inf"), dtype=torch.float64)
    high = -low
    for i in range(0, n, _ROWS):
        block = x[i : i + _ROWS].double()
        lengths[i : i + _ROWS] = torch.linalg.vector_norm(block, dim=1)
        low = torch.minimum(low, block.amin(dim=0))
        high = torch.maximum(high, block.amax(dim=0))
    # The length of a row with NaN or an infinite number is neither; one of 1e200 overflows.
    _refuse(~lengths.isfinite(), name, "not finite (NaN or infinite)", "embed them anew")
    _refuse(lengths == 0, name, "all zeros, which have no direction", "embed them anew")
    constant = low == high
    unit = _scaled(x, lengths)
    rounding = 1e-12 if unit.dtype == torch.float64 else 1e-6
    if all(bool(((part - unit[0]).abs() < rounding).all()) for part in unit.split(_ROWS)):
        raise InputError(
            f"All {n:,} rows of {name} have the same direction: there is nothing to analyse; give "
            "embeddings of different items."
        )
    notes = []
    if bool(constant.any()):
        columns = constant.nonzero().flatten().tolist()
        notes.append(
            f"{name}: {len(columns):,} of {x.size(1):,} columns have the same value in every row "
            f"(numbers {listed([str(c) for c in columns])}), so they tell no items apart."
        )
    shortest, longest = float(lengths.min()), float(lengths.max())
    off = max(1 - shortest, longest - 1)
    if off > (_HALF_ROUNDING if x.dtype in (torch.float16, torch.bfloat16) else _ROUNDING):
        notes.append(
            f"{name}: rows have lengths from {shortest:.4g} to {longest:.4g}; every measure takes "
            "them scaled to length 1, as a search by cosine does."
        )
    about = {
        "rows": n,
        "dim": x.size(1),
        "shortest": shortest,
        "longest": longest,
        "constant_columns": int(constant.sum()),
    }
    return UnitRows(unit, about, notes)


def _check_shape(x: Tensor, name: str) -> None:
    if x.dim() != 2 or x.is_complex() or x.dtype == torch.bool:
        raise InputError(
            f"{name} is {str(x.dtype).removeprefix('torch.')} of shape {list(x.shape)}; expected "
            "real numbers [rows, size of an embedding]."
        )
    if len(x) < 2:
        raise InputError(
            f"{name} has {len(x)} row{'' if len(x) == 1 else 's'}; a spectrum needs at least two "
            "embeddings."
        )
    if x.size(1) < 2:
        raise InputError(
            f"{name} has embeddings of {x.size(1)} number{'' if x.size(1) == 1 else 's'}; on a "
            "sphere they need at least two."
        )


def _refuse(broken: Tensor, name: str, what: str, remedy: str) -> None:
    """Refuse a matrix with such rows, and say which they are, counted from 0."""
    rows = broken.nonzero().flatten().tolist()
    if rows:
        raise InputError(
            f"{len(rows):,} of {len(broken):,} rows of {name} are {what}: rows "
            f"{_numbers(rows)}, counted from 0; {remedy} or leave them out."
        )


def _numbers(rows: Sequence[int]) -> str:
    return listed([str(row) for row in rows], 5)


def _scaled(x: Tensor, lengths: Tensor) -> Tensor:
    """The rows over their lengths, block by block."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    # Lengths that are 1 but for rounding need no second copy of all rows.
    if x.dtype == dtype and float((lengths - 1).abs().max()) < 4 * torch.finfo(dtype).eps:
        return x
    unit = torch.empty(x.shape, dtype=dtype)
    for i in range(0, len(x), _ROWS):
        block = x[i : i + _ROWS].double()
        unit[i : i + _ROWS] = block / lengths[i : i + _ROWS, None]
    return unit
