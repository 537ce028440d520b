from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from atr_moco_plugin.rank import rank_report
from atr_moco_plugin.rank.random_vectors import bartlett_spectrum, random_baseline, random_spectra


@pytest.mark.parametrize(
    ("rows", "rankme", "participation_ratio", "stable_rank", "count"),
    [
        (64, 61.8, 51.3, 29.5, 64),
        (256, 206.1, 128.8, 65.7, 224),
        (1024, 247.4, 204.9, 115.6, 256),
        (4096, 254.0, 241.0, 164.2, 256),
        (65536, 255.9, 255.0, 227.2, 256),
    ],
)
def test_published_table_for_256_dimensions(
    rows: int, rankme: float, participation_ratio: float, stable_rank: float, count: float
) -> None:
    got = random_baseline(rows, 256, threshold=0.1)
    assert got.rankme == pytest.approx(rankme, rel=0.005)
    assert got.participation_ratio == pytest.approx(participation_ratio, rel=0.01)
    # The table is one draw, whose stable rank varies by 3 % at 64 rows and 0.6 % at 4,096.
    assert got.stable_rank == pytest.approx(stable_rank, rel=0.015)
    assert got.count == pytest.approx(count, rel=0.005)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    ("rows", "dim"), [(96, 160), (160, 96), (128, 128), (129, 128), (4000, 64)]
)
def test_triangular_factor_has_the_spectrum_of_drawn_vectors(
    rows: int, dim: int, center: bool
) -> None:
    drawn = torch.stack(random_spectra(rows, dim, center)).mean(0)
    factored = bartlett_spectrum(np.random.default_rng(0), rows, dim, center)
    error = (factored - drawn).abs() / drawn[0]
    assert error.max() < 0.06  # one draw against a mean: the largest value varies by 1 to 3 %
    assert error.mean() < 0.015


def test_unit_rows_of_a_wide_factor_keep_the_energy_exactly() -> None:
    values = bartlett_spectrum(np.random.default_rng(1), 50, 80, False)
    assert values.square().sum() == pytest.approx(50)


@pytest.mark.parametrize("center", [False, True])
def test_tall_factor_loses_one_degree_of_freedom_when_centred(center: bool) -> None:
    rng = np.random.default_rng(0)
    draws = [bartlett_spectrum(rng, 6, 4, center).square().sum() for _ in range(400)]
    # The energy is a chi-square of 4 (6 - center) degrees over 4: standard error of the mean 0.09.
    assert float(torch.stack(draws).mean()) == pytest.approx(6 - center, abs=0.3)


@pytest.mark.parametrize("center", [False, True])
def test_a_report_of_random_vectors_agrees_with_its_baseline(center: bool) -> None:
    x = normalize(torch.randn(700, 64, generator=torch.Generator().manual_seed(5)), dim=1)
    report = rank_report(x, center=center, normalizer="l2", threshold=0.12)
    base = report.random_baseline
    assert report.rankme == pytest.approx(base.rankme, rel=0.01)
    assert report.participation_ratio == pytest.approx(base.participation_ratio, rel=0.02)
    assert report.stable_rank == pytest.approx(base.stable_rank, rel=0.06)
    assert report.count == pytest.approx(base.count, abs=3)
    assert 5 < base.count < 60  # the threshold cuts through the spectrum


def test_is_deterministic_and_drawn_once_a_shape() -> None:
    torch.manual_seed(1)
    first = random_baseline(33, 17)
    assert random_spectra(33, 17, False) is random_spectra(33, 17, False)
    random_spectra.cache_clear()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert astuple(random_baseline(33, 17)) == astuple(first)
    assert torch.equal(torch.get_rng_state(), state)


def test_centring_takes_one_dimension_from_few_vectors() -> None:
    assert random_baseline(10, 200, threshold=1e-6).count == 10
    assert random_baseline(10, 200, center=True, threshold=1e-6).count == 9
