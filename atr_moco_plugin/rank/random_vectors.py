"""Rank measures of random unit vectors, the reference for every measured value."""

from __future__ import annotations

from dataclasses import astuple
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.rank.spectrum import RankMeasures, singular_values, spectrum_measures

_MAX_DRAWS = 32
_MAX_NUMBERS = 2**20


def random_baseline(
    rows: int, dim: int, *, center: bool = False, normalizer: str = "max", threshold: float = 0.01
) -> RankMeasures:
    """Rank measures of ``rows`` random unit vectors of size ``dim``, uniform on the sphere.

    Deterministic: the mean over seeded draws, 32 where they are cheap and fewer (down to 1) for
    larger shapes, whose measures vary less from draw to draw. Spectra are cached by shape, so a
    logger pays once for each shape. Above a million entries the vectors themselves are not drawn
    but a triangular factor with the same singular values (Bartlett's decomposition of a Wishart
    matrix). That is exact for ``rows <= dim``; for more rows it leaves out that each length is
    exactly 1, which changes the participation ratio by a share of about ``2 / rows``.

    Args:
        rows: N.
        dim: d.
        center: whether the mean vector is removed first.
        normalizer: see :func:`~atr_moco_plugin.rank.report.rank_report`.
        threshold: see :func:`~atr_moco_plugin.rank.report.rank_report`.

    Raises:
        ValueError: for an unknown normaliser.
    """
    draws = [
        astuple(spectrum_measures(values, normalizer=normalizer, threshold=threshold))
        for values in random_spectra(rows, dim, center)
    ]
    return RankMeasures(*np.mean(draws, axis=0).tolist())


@lru_cache(maxsize=256)
def random_spectra(rows: int, dim: int, center: bool) -> tuple[Tensor, ...]:
    """Seeded draws of the singular values of ``rows`` random unit vectors, each ``[min(N, d)]``."""
    rng = np.random.default_rng(0)
    if rows * dim > _MAX_NUMBERS:
        return (bartlett_spectrum(rng, rows, dim, center),)
    draws = min(max(_MAX_NUMBERS // max(rows * dim, 1), 1), _MAX_DRAWS)
    return tuple(
        singular_values(_unit(rng.standard_normal((rows, dim))), center=center)
        for _ in range(draws)
    )


def bartlett_spectrum(rng: np.random.Generator, rows: int, dim: int, center: bool) -> Tensor:
    """One draw of :func:`random_spectra` through a triangular factor (see :func:`random_baseline`).

    Args:
        rng: of the draw.
        rows: N.
        dim: d.
        center: whether the mean vector is removed first.
    """
    if rows <= dim:
        # X = L Q with orthonormal rows Q: lengths, mean row and spectrum of X are those of L.
        return singular_values(_unit(_bartlett_factor(rng, rows, dim)), center=center)
    # Removing the mean of Gaussian rows costs exactly one degree of freedom.
    factor = _bartlett_factor(rng, dim, rows - int(center))
    return singular_values(torch.from_numpy(factor / np.sqrt(dim)))


def _bartlett_factor(rng: np.random.Generator, size: int, freedom: int) -> NDArray[np.float64]:
    """Lower triangular L with L L^T distributed as G G^T, G ``[size, freedom]`` Gaussian."""
    factor = np.tril(rng.standard_normal((size, size)), k=-1)
    np.fill_diagonal(factor, np.sqrt(rng.chisquare(freedom - np.arange(size))))
    return factor


def _unit(x: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
