from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.rank import alignment, modality_gap, uniformity


def sphere(rows: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def test_alignment_is_the_mean_squared_distance_of_pairs() -> None:
    a, t = sphere(20, 5), sphere(20, 5, seed=1)
    rows = [sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for p, q in zip(a, t, strict=True)]
    assert alignment(a, t) == pytest.approx(float(sum(rows)) / 20)
    assert alignment(a, a) == 0
    assert alignment(3 * a, 0.1 * t) == pytest.approx(alignment(a, t))


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_the_log_mean_potential_of_distinct_pairs(t: float) -> None:
    x = sphere(15, 4)
    pairs = [(i, j) for i in range(15) for j in range(i)]
    potential = [math.exp(-t * float((x[i] - x[j]).square().sum())) for i, j in pairs]
    assert uniformity(x, t) == pytest.approx(math.log(sum(potential) / len(pairs)))


def test_uniformity_of_equal_rows_is_zero_and_of_opposite_rows_minus_4t() -> None:
    x = sphere(1, 8)
    assert uniformity(x.repeat(6, 1)) == pytest.approx(0)
    assert uniformity(torch.cat([x, -x])) == pytest.approx(-8)


def test_uniformity_of_many_rows_is_estimated_on_a_seeded_subset() -> None:
    x = sphere(600, 8)
    full = uniformity(x)
    state = torch.get_rng_state()
    part = uniformity(x, max_rows=300)
    assert part == pytest.approx(full, abs=0.05) and part != full
    assert part == uniformity(x, max_rows=300)
    assert part != uniformity(x, max_rows=300, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_modality_gap_is_the_distance_of_the_means() -> None:
    a, t = sphere(20, 5), sphere(30, 5, seed=1)
    expected = float((a.mean(0) - t.mean(0)).norm())
    assert modality_gap(a, t) == pytest.approx(expected)
    assert modality_gap(4 * a, t.float()) == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_measured_without_further_loss() -> None:
    x = sphere(50, 16).half()
    assert uniformity(x) == pytest.approx(uniformity(x.double()))


def test_errors_name_the_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[3, 3\]"):
        alignment(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"\[0, 3\] and \[0, 3\]"):
        alignment(torch.ones(0, 3), torch.ones(0, 3))
    with pytest.raises(ValueError, match="N >= 2"):
        uniformity(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least one row"):
        modality_gap(torch.ones(0, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[2, 4\]"):
        modality_gap(torch.ones(2, 3), torch.ones(2, 4))
