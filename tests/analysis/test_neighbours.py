from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis.neighbours import mutual_neighbours, nearest


def sphere(rows: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "k"), [(60, 3), (60, 59), (2, 1), (9, 2)])
def test_the_nearest_are_those_of_all_distances(rows: int, k: int, dtype: torch.dtype) -> None:
    distance = pytest.importorskip("scipy.spatial.distance", reason="the oracle")
    x = sphere(rows, 5).to(dtype)
    queries = torch.arange(rows - 1, (rows - 1) // 2, -1)
    full = distance.cdist(x.double().numpy(), x.double().numpy())
    np.fill_diagonal(full, np.inf)
    expected = np.argsort(full[queries.numpy()], axis=1)[:, :k]
    found = nearest(x, queries, k)
    assert np.array_equal(found.rows.numpy(), expected)
    theirs = np.take_along_axis(full[queries.numpy()], expected, axis=1)
    assert np.abs(found.distances.numpy() - theirs).max() < 1e-12


def test_distances_of_near_duplicates_keep_their_digits() -> None:
    x = sphere(20, 64).float()
    x[1] = x[0]
    x[1, 0] += 1e-4
    found = nearest(x, torch.tensor([0]), 1)
    assert int(found.rows[0, 0]) == 1
    exact = float((x[1].double() - x[0].double()).norm())
    assert float(found.distances[0, 0]) == pytest.approx(exact, rel=1e-12)


def test_equal_rows_are_at_distance_zero() -> None:
    x = sphere(10, 4).float()
    x[7] = x[3]
    found = nearest(x, torch.tensor([3, 7]), 1)
    assert found.distances.flatten().tolist() == [0, 0] and found.rows.flatten().tolist() == [7, 3]


def test_mutual_neighbours_are_those_of_a_loop() -> None:
    audio, text = sphere(40, 6), sphere(40, 3, seed=1)
    shared = []
    for i in range(40):
        near = []
        for x in (audio, text):
            distance = (x - x[i]).norm(dim=1)
            distance[i] = torch.inf
            near.append(set(distance.argsort()[:5].tolist()))
        shared.append(len(near[0] & near[1]) / 5)
    assert mutual_neighbours(audio, text, 5) == pytest.approx(np.mean(shared))
    assert mutual_neighbours(audio, audio, 5) == 1
