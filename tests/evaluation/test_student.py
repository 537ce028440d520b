"""Student's t against scipy's."""

from __future__ import annotations

import pytest

from atr_moco_plugin.evaluation.student import t_quantile, t_tail

stats = pytest.importorskip("scipy.stats")

FREEDOMS = [1, 1.3, 2, 4.2, 10, 99, 12_345.6, 1e9]


@pytest.mark.parametrize("df", FREEDOMS)
def test_the_tail(df: float) -> None:
    for t in (-3.0, 0.0, 0.3, 1.0, 2.5, 12.0, 400.0):
        assert t_tail(t, df) == pytest.approx(stats.t.sf(t, df), abs=1e-6)


@pytest.mark.parametrize("df", FREEDOMS)
def test_the_quantile(df: float) -> None:
    for p in (0.5, 0.9, 0.975, 0.9999):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-5, abs=1e-6)


def test_infinity_has_nothing_above_it() -> None:
    assert t_tail(float("inf"), 3) == 0


@pytest.mark.parametrize("p", [0.4, 1.0, 48.0, float("nan")])
def test_probabilities_without_a_quantile_are_refused(p: float) -> None:
    """From 1 up the search went on for ever."""
    with pytest.raises(ValueError, match="from 0.5 to below 1, got"):
        t_quantile(p, 4)
