from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.rank import rank_report

MEASURES = ("count", "rankme", "stable_rank", "participation_ratio", "alpha_req")


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def oracle(x: Tensor, normalizer: str, threshold: float) -> dict[str, float]:
    """The definitions one by one, on the singular values of LAPACK's SVD in float64."""
    s = torch.linalg.svdvals(x.double()).tolist()
    scale = {"max": s[0], "sum": sum(s), "l2": math.sqrt(sum(v * v for v in s))}[normalizer]
    p = [v / sum(s) for v in s]
    # Weighted normal equations of log(sigma_i^2) = b - alpha log(i), weights 1 / i.
    points = [(1 / i, math.log(i), math.log(v * v)) for i, v in enumerate(s, 1) if v > 1e-5 * s[0]]
    w, wx, wy, wxx, wxy = (
        sum(w * f(x, y) for w, x, y in points)
        for f in (
            lambda x, y: 1,
            lambda x, y: x,
            lambda x, y: y,
            lambda x, y: x * x,
            lambda x, y: x * y,
        )
    )
    return {
        "count": sum(v / scale > threshold for v in s),
        "rankme": math.exp(-sum(v * math.log(v) for v in p if v > 0)),
        "stable_rank": sum(v**2 for v in s) / s[0] ** 2,
        "participation_ratio": sum(v**2 for v in s) ** 2 / sum(v**4 for v in s),
        "alpha_req": -(w * wxy - wx * wy) / (w * wxx - wx * wx),
    }


@pytest.mark.parametrize(("rows", "dim"), [(2, 9), (9, 2), (40, 40), (200, 24), (24, 200)])
@pytest.mark.parametrize("normalizer", ["max", "sum", "l2"])
@pytest.mark.parametrize("center", [False, True])
def test_matches_the_definitions(rows: int, dim: int, normalizer: str, center: bool) -> None:
    x = gaussian(rows, dim) * torch.logspace(0, -2, dim) + 0.1
    report = rank_report(x, center=center, normalizer=normalizer, threshold=0.03)
    reference = x.double() - x.double().mean(0) if center else x.double()
    if center and rows == 2:
        assert report.rankme == pytest.approx(1)  # two centred points lie on a line
        return
    expected = oracle(reference, normalizer, 0.03)
    # Centring 40 or 24 rows leaves one singular value of zero, at the mercy of rounding.
    got = {name: getattr(report, name) for name in MEASURES}
    assert got == pytest.approx(expected, rel=1e-5)
    scale = {"max": torch.linalg.matrix_norm(reference, 2), "l2": reference.norm()}
    scale["sum"] = torch.linalg.matrix_norm(reference, "nuc")
    torch.testing.assert_close(
        report.normalized.double(),
        torch.linalg.svdvals(reference) / scale[normalizer],
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize(
    "x",
    [
        gaussian(300, 64),
        gaussian(64, 300),
        gaussian(256, 256) @ torch.diag(torch.logspace(0, -8, 256)),
        gaussian(500, 4) @ gaussian(4, 64, seed=1),  # rank 4
        gaussian(128, 32).half(),
        normalize(gaussian(400, 32) + 30, dim=1),  # a dominating mean direction
    ],
)
def test_singular_values_are_within_a_millionth_of_the_largest(x: Tensor) -> None:
    expected = torch.linalg.svdvals(x.double())
    report = rank_report(x)
    assert report.singular_values.dtype == torch.float32
    assert report.singular_values.shape == (min(x.shape),)
    assert (report.singular_values.diff() <= 0).all()
    error = (report.singular_values.double() - expected).abs().max() / expected[0]
    assert error < 1e-6


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_orthogonal_rows_have_the_rank_they_have(rank: int) -> None:
    report = rank_report(torch.eye(rank, 32).repeat(5, 1))
    assert report.count == rank
    for name in ("rankme", "stable_rank", "participation_ratio"):
        assert getattr(report, name) == pytest.approx(rank)


def test_power_law_gives_its_exponent() -> None:
    spectrum = torch.arange(1, 65, dtype=torch.float64) ** -0.6  # eigenvalues i^-1.2
    assert rank_report(torch.diag(spectrum)).alpha_req == pytest.approx(1.2)
    assert rank_report(torch.eye(8)).alpha_req == pytest.approx(0, abs=1e-12)


matrices = st.builds(gaussian, st.integers(1, 24), st.integers(1, 24), seed=st.integers(0, 2**31))


@settings(max_examples=40, deadline=None)
@given(matrices, st.booleans())
def test_bounds(x: Tensor, center: bool) -> None:
    report = rank_report(x, center=center)
    most = min(len(x) - center, x.size(1))
    assert report.count <= most
    for name in ("rankme", "stable_rank", "participation_ratio"):
        assert (1 if most else 0) - 1e-9 <= getattr(report, name) <= most + 1e-6


@settings(max_examples=40, deadline=None)
@given(matrices, st.booleans(), st.floats(0.01, 100))
def test_rotation_row_order_and_scale_do_not_matter(x: Tensor, center: bool, scale: float) -> None:
    x = x.double()
    rotation = torch.linalg.qr(gaussian(x.size(1), x.size(1), seed=7).double()).Q
    first = rank_report(x, center=center)
    second = rank_report(scale * x.flip(0) @ rotation, center=center)
    expected = scale * first.singular_values
    # Values are exact to a share of the largest: one that is 0 may come out as 1e-8 of it.
    share = 1e-6 * float(expected.max()) if len(expected) else 0.0
    torch.testing.assert_close(second.singular_values, expected, atol=share, rtol=1e-5)
    for name in ("rankme", "stable_rank", "participation_ratio"):
        assert getattr(second, name) == pytest.approx(getattr(first, name), rel=1e-5)


def test_centring_removes_a_common_direction() -> None:
    x = gaussian(300, 32)
    shifted = x + 50 * gaussian(1, 32, seed=1)
    assert rank_report(shifted).stable_rank < 1.1
    assert rank_report(shifted, center=True).rankme == pytest.approx(
        rank_report(x, center=True).rankme, rel=1e-4
    )


@pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.zeros(0, 3), torch.zeros(0, 0)])
def test_nothing_has_rank_zero(x: Tensor) -> None:
    report = rank_report(x)
    assert report.singular_values.tolist() == report.normalized.tolist() == [0.0] * min(x.shape)
    assert (report.count, report.rankme, report.stable_rank) == (0, 0, 0)
    assert math.isnan(report.alpha_req)


def test_one_row_has_rank_one_and_none_when_centred() -> None:
    x = gaussian(1, 6)
    assert rank_report(x).rankme == pytest.approx(1)
    assert rank_report(x).singular_values.tolist() == pytest.approx([float(x.norm())])
    assert rank_report(x, center=True).rankme == 0


@pytest.mark.parametrize("rows", [2, 3, 7, 100])
def test_equal_rows_have_no_rank_left_when_centred(rows: int) -> None:
    # 0.1 and its like are not exact, so that the mean is not exactly the row.
    x = (torch.arange(1, 9, dtype=torch.float64) / 10).repeat(rows, 1)
    assert rank_report(x).rankme == pytest.approx(1, abs=1e-4)
    centered = rank_report(x, center=True)
    assert (centered.count, centered.rankme) == (0, 0)


def test_refuses_rows_that_are_not_finite_and_counts_them() -> None:
    x = gaussian(6, 4)
    x[1] = float("nan")
    x[4, 2] = float("inf")
    with pytest.raises(ValueError, match="2 of 6 embedding rows are not finite"):
        rank_report(x)


def test_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="Unknown normalizer 'mean'; expected one of max, sum, l2"):
        rank_report(gaussian(3, 3), normalizer="mean")
    with pytest.raises(ValueError, match=r"shape \[N, d\], got \[3\]"):
        rank_report(torch.ones(3))


def test_measures_are_json_with_none_where_nothing_is_defined() -> None:
    report = rank_report(gaussian(1, 4), normalizer="sum", threshold=0.2)
    read = json.loads(json.dumps(report.measures(), allow_nan=False))
    assert list(read) == list(MEASURES) and read["alpha_req"] is None
    assert report.normalized.tolist() == [1.0]
    assert (report.normalizer, report.threshold, report.rows, report.dim) == ("sum", 0.2, 1, 4)
    assert report.random_baseline.measures()["rankme"] == pytest.approx(1)


def test_gradients_are_not_tracked() -> None:
    assert not rank_report(gaussian(4, 4).requires_grad_()).singular_values.requires_grad
