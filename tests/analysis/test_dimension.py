from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis.dimension import random_two_nn, two_nn
from atr_moco_plugin.analysis.neighbours import nearest


def dimension(x: Tensor) -> float | None:
    first, second = nearest(x, torch.arange(len(x)), 2).distances.T
    return two_nn(first, second)


def test_it_is_the_slope_of_the_papers_fit() -> None:
    rng = np.random.default_rng(0)
    ratios = rng.pareto(7, 500) + 1
    logs = np.sort(np.log(ratios))[:450]
    y = -np.log(1 - np.arange(1, 451) / 500)
    slope = np.linalg.lstsq(logs[:, None], y, rcond=None)[0][0]
    found = two_nn(torch.ones(500).double(), torch.from_numpy(ratios))
    assert found == pytest.approx(slope, abs=1e-9) and found == pytest.approx(7, rel=0.1)


@pytest.mark.parametrize("manifold", [1, 2, 4])
def test_rows_on_a_manifold_have_its_dimension(manifold: int) -> None:
    generator = torch.Generator().manual_seed(manifold)
    low = torch.rand(3000, manifold, generator=generator, dtype=torch.float64)
    # Bent into 20 dimensions of the sphere.
    axes = torch.randn(manifold, 20, generator=generator, dtype=torch.float64) / 4
    found = dimension(normalize(torch.cat([(low @ axes).sin(), torch.ones(3000, 1)], dim=1), dim=1))
    assert found == pytest.approx(manifold, rel=0.12)


@pytest.mark.parametrize(("rows", "dim"), [(2000, 2), (2000, 3), (1500, 40), (800, 300)])
def test_random_vectors_have_the_dimension_that_is_told_without_drawing_them(
    rows: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [
        dimension(normalize(torch.randn(rows, dim, generator=generator), dim=1)) for _ in range(4)
    ]
    told = np.mean([random_two_nn(rows, dim, seed=i) for i in range(8)])
    assert np.mean([x for x in drawn if x is not None]) == pytest.approx(told, rel=0.05)


def test_there_is_none_without_ratios() -> None:
    one = torch.ones(4).double()
    assert two_nn(one, one) is None
    assert two_nn(one[:2], 2 * one[:2]) is None
    assert two_nn(one[:0], one[:0]) is None
    assert two_nn(one[:3], torch.tensor([1.1, 1.2, 1.3]).double()) is not None
