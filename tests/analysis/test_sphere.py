from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atr_moco_plugin.analysis.pairs import PairedRows
from atr_moco_plugin.analysis.sphere import (
    mean_row,
    paired_alignment,
    random_gap,
    random_uniformity,
)
from atr_moco_plugin.rank import alignment, modality_gap, uniformity


def sphere(rows: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("dim", [2, 3, 10, 512, 4096])
@pytest.mark.parametrize("t", [0.5, 2.0, 8.0])
def test_uniformity_of_random_vectors_is_scipys_and_that_of_drawn_ones(dim: int, t: float) -> None:
    special = pytest.importorskip("scipy.special", reason="the oracle")
    expected = math.log(special.hyp0f1(dim / 2, t * t)) - 2 * t
    assert random_uniformity(dim, t) == pytest.approx(expected, abs=1e-9)
    if dim <= 512:
        assert uniformity(sphere(2000, dim), t) == pytest.approx(expected, abs=0.03)


def test_the_gap_of_sampling_is_that_of_two_samples_of_one_distribution() -> None:
    common = torch.tensor([1.0, 0, 0, 0]).double()
    squares = []
    told = 0.0
    for seed in range(200):
        a, t = (normalize(sphere(n, 4, seed + s) + common, dim=1) for n, s in ((30, 0), (50, 500)))
        squares.append(modality_gap(a, t) ** 2)
        told += random_gap((mean_row(a), mean_row(t)), (30, 50)) / 200
    assert math.sqrt(sum(squares) / 200) == pytest.approx(told, rel=0.1)


def test_alignment_beside_its_mean_over_all_shuffles() -> None:
    audio, text = sphere(4, 3), sphere(4, 3, seed=1)
    rows = PairedRows(audio, text, torch.arange(4)[:, None].expand(-1, 2))
    found = paired_alignment(rows)
    every = [alignment(audio, text[list(o)]) for o in itertools.permutations(range(4))]
    assert found.value == pytest.approx(alignment(audio, text))
    assert found.shuffled == pytest.approx(sum(every) / len(every))


def test_only_pairs_that_are_closer_beyond_doubt_are_called_so() -> None:
    audio, noise = sphere(100, 16), sphere(100, 16, seed=1)
    pairs = torch.arange(100)[:, None].expand(-1, 2)
    assert not paired_alignment(PairedRows(audio, noise, pairs)).closer
    assert paired_alignment(PairedRows(audio, normalize(audio + noise, dim=1), pairs)).closer
    squares = (audio - noise).square().sum(dim=1)
    error = paired_alignment(PairedRows(audio, noise, pairs)).error
    assert error == pytest.approx(float(squares.std(correction=0)) / 10)
