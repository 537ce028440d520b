"""Mixtures of Student's t."""

from __future__ import annotations

import numpy as np
import pytest

from atr_moco_plugin.comparison.mixture import mixed_quantile, mixed_tail
from atr_moco_plugin.evaluation.student import t_quantile, t_tail


def test_a_mixture_lies_between_its_parts() -> None:
    tails = [t_tail(2.5, 200), mixed_tail(2.5, [0.3, 0.7], [2, 200]), t_tail(2.5, 2)]
    assert tails == sorted(tails)
    for weights, df in (([1.0, 0.0], 2), ([0.0, 1.0], 200)):
        assert mixed_quantile(0.975, weights, [2, 200]) == pytest.approx(t_quantile(0.975, df))


def test_the_quantile_is_that_of_the_tail() -> None:
    for weight in (0.1, 0.5, 0.9):
        middle = mixed_quantile(0.975, [weight, 1 - weight], [2, 200])
        assert mixed_tail(middle, [weight, 1 - weight], [2, 200]) == pytest.approx(0.025)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_a_sum_of_two_variances_is_not_judged_too_boldly(share: float) -> None:
    """A normal difference, whose variance is in part estimated with two degrees of freedom."""
    rng = np.random.default_rng(0)
    number = 4_000
    apart = np.abs(rng.normal(size=number))
    clips = (1 - share) * rng.chisquare(199, number) / 199
    seeds = share * rng.chisquare(2, number) / 2
    called = [
        2 * mixed_tail(d / (a + b) ** 0.5, [a / (a + b), b / (a + b)], [199, 2]) <= 0.05
        for d, a, b in zip(apart, clips, seeds, strict=True)
    ]
    assert 0.025 < np.mean(called) < 0.062
