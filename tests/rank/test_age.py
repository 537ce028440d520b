from __future__ import annotations

import pytest
import torch

from atr_moco_plugin.rank.age import age_share


def rows(n: int, d: int, drift: float = 0.0, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, d, generator=generator)
    x[:, 0] += drift * torch.linspace(0, 1, n)
    return x


@pytest.mark.parametrize(("n", "groups"), [(64, 4), (67, 4), (90, 8), (12, 2)])
def test_it_is_omega_squared_by_the_book(n: int, groups: int) -> None:
    x = rows(n, 5, drift=3)
    size = n // groups
    parts = x[n - size * groups :].double().split(size)
    mean = torch.cat(parts).mean(dim=0)
    between = sum(size * float((part.mean(dim=0) - mean).square().sum()) for part in parts)
    within = sum(float((part - part.mean(dim=0)).square().sum()) for part in parts)
    noise = within / (size * groups - groups)
    expected = (between - (groups - 1) * noise) / (between + within + noise)
    assert age_share(x, groups) == pytest.approx(expected, abs=1e-6)


def test_rows_in_random_order_have_none_in_the_mean() -> None:
    shares = [age_share(rows(32, 4, seed=seed)) for seed in range(400)]
    # Without the correction three of 31 degrees of freedom would be a share of 0.1.
    assert abs(sum(shares) / 400) < 0.006


def test_it_rises_with_the_drift_whatever_the_scale() -> None:
    shares = [age_share(rows(256, 4, drift)) for drift in (0, 1, 3, 10)]
    assert shares == sorted(shares) and shares[0] < 0.02 and shares[-1] > 0.6
    small = age_share(rows(256, 4, drift=0.03, scale=0.01))
    assert small == pytest.approx(shares[2], abs=1e-6)


def test_a_rotation_about_the_mean_is_not_seen() -> None:
    x = rows(512, 2)
    angle = torch.linspace(0, 3, 512)
    turned = torch.stack(
        [
            x[:, 0] * angle.cos() - x[:, 1] * angle.sin(),
            x[:, 0] * angle.sin() + x[:, 1] * angle.cos(),
        ],
        dim=1,
    )
    assert age_share(turned) < 0.02


def test_sorted_data_look_like_age() -> None:
    x = rows(256, 4)
    assert age_share(x[x[:, 0].argsort()]) > 0.1


def test_rows_that_do_not_vary_have_none() -> None:
    assert age_share(torch.full((32, 4), 0.5)) == 0.0
