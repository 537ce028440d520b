from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.rank.growth import (
    SHARE,
    TOLERANCE,
    Growth,
    centered_rankme,
    growth,
)
from atr_moco_plugin.rank.random_vectors import random_baseline

D = 128
SIZES = [2**i for i in range(4, 13)]  # 16 to 4,096


def rows(scale: np.ndarray, n: int = SIZES[-1], dim: int = D) -> torch.Tensor:
    """Unit vectors whose directions before normalisation have the standard deviations ``scale``."""
    x = np.zeros((n, dim))
    x[:, : len(scale)] = np.random.default_rng(3).standard_normal((n, len(scale))) * scale
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


def recommended(x: torch.Tensor) -> int:
    ranks = [centered_rankme(x[-n:]) for n in SIZES]
    steps = (growth(SIZES[i : i + 2], ranks[i : i + 2], x.size(1)) for i in range(len(SIZES) - 1))
    return next((n for n, step in zip(SIZES, steps, strict=False) if not step.worth_it), SIZES[-1])


@pytest.mark.parametrize("directions", [8, 16, 32, 64, D])
def test_equally_strong_directions_get_twice_as_many_rows(directions: int) -> None:
    # D of them are noise.
    assert recommended(rows(np.ones(directions))) == max(2 * directions, SIZES[0])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0])
def test_power_laws_stop_where_the_dimensions_are_filled(alpha: float) -> None:
    x = rows(np.arange(1, D + 1) ** (-alpha / 2))
    size = recommended(x)
    assert 2 * D <= size <= 4 * D
    assert centered_rankme(x[-size:]) > 0.85 * centered_rankme(x)


def test_rows_that_come_again_are_not_worth_it() -> None:
    # An epoch of 96 rows, again and again: no queue longer than the first that holds it.
    epoch = rows(np.arange(1, D + 1) ** -0.5, n=96)
    assert recommended(epoch.repeat(50, 1)) == 128


def test_equal_rows_need_no_queue() -> None:
    assert recommended(torch.ones(SIZES[-1], D)) == SIZES[0]


def test_the_gain_is_per_doubling() -> None:
    step = growth((100, 800), (10.0, 80.0), dim=D)
    assert step.gain == pytest.approx(1.0)
    noise = [random_baseline(n, D, center=True).rankme for n in (100, 800)]
    assert step.noise_gain == pytest.approx((noise[1] / noise[0]) ** (1 / 3) - 1)
    assert growth((100, 150), (10.0, 11.0), D).gain == pytest.approx(
        1.1 ** (1 / math.log2(1.5)) - 1
    )


def test_queues_that_were_never_filled_gain_nothing() -> None:
    assert growth((100, 100), (10.0, 12.0), D) == Growth(0.0, 0.0)
    assert not growth((100, 100), (10.0, 12.0), D).worth_it
    assert growth((1, 2), (0.0, 1.0), D).worth_it


@given(gain=st.floats(-1, 2), noise=st.floats(0, 1))
def test_the_rule(gain: float, noise: float) -> None:
    assert Growth(gain, noise).worth_it == (gain > TOLERANCE and gain > SHARE * noise)
