from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.analysis.angles import (
    overlap,
    principal_angles,
    principal_axes,
    random_angles,
)


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def basis(dim: int, count: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(dim, count, seed)).Q


@given(
    st.integers(2, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99),
    st.sampled_from([0.0, 1e-9, 1e-4, 1.0]),
)  # fmt: skip
def test_the_angles_are_scipys(dim: int, r: int, s: int, seed: int, near: float) -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="the oracle")
    a = basis(dim, min(r, dim), seed)
    # Also nearly equal subspaces, whose cosines are all but 1.
    b = torch.linalg.qr(a + near * gaussian(dim, a.size(1), seed + 1)).Q
    b = b if near < 1 else basis(dim, min(s, dim), seed + 1)
    expected = np.sort(linalg.subspace_angles(a.numpy(), b.numpy()))
    found = principal_angles(a, b)
    assert np.abs(found.numpy() - expected).max() < 1e-7
    assert overlap(a, b) == pytest.approx(float(np.mean(np.cos(expected) ** 2)), abs=1e-9)


@pytest.mark.parametrize(("rows", "dim"), [(40, 6), (5, 9), (7, 7), (300, 3)])
def test_the_axes_are_those_of_the_covariance(rows: int, dim: int) -> None:
    x = gaussian(rows, dim) * torch.arange(1, dim + 1) + 5
    found = principal_axes(x)
    expected = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1][: min(rows - 1, dim)]
    assert len(found.variances) == len(expected)
    assert np.abs(found.variances.numpy() / expected - 1).max() < 1e-6
    covariance = torch.from_numpy(np.cov(x.T, ddof=0))
    assert torch.allclose(covariance @ found.axes, found.axes * found.variances, atol=1e-9)


def test_how_many_axes_hold_a_share_of_the_variance() -> None:
    x = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    axes = principal_axes(torch.cat([x, -x]))  # variances 9, 4 and 1 of 14
    shares = (0.5, 9 / 14, 0.65, 0.9, 0.95, 1.0)
    assert [axes.holding(share) for share in shares] == [1, 1, 2, 2, 3, 3]


def test_random_subspaces_overlap_as_much_as_their_dimensions_say() -> None:
    found = random_angles(100, 30, 20)
    assert len(found) == 20 and torch.equal(found, random_angles(100, 30, 20))
    assert float(found.cos().square().mean()) == pytest.approx(0.3, abs=0.03)
    assert 0 <= float(found[0]) <= float(found[-1]) <= math.pi / 2
