from __future__ import annotations

import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import PairedRows
from atr_moco_plugin.analysis.retrieval import retrieve
from atr_moco_plugin.evaluation.metrics import relevance_metrics


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_figures_are_those_of_an_evaluation_and_lie_in_their_intervals() -> None:
    owner = torch.arange(150) // 3
    pairs = torch.stack([owner, torch.arange(150)], dim=1)
    audio = gaussian(50, 6)
    rows = PairedRows(audio, audio[owner] + gaussian(150, 6, seed=1), pairs)
    gallery = rows.gallery()
    scores = rows.audio @ rows.text.T
    found = retrieve(scores, gallery)
    assert found.figures == relevance_metrics(scores, gallery.relevance)
    assert sorted(found.intervals) == sorted(
        f"{way}_{name}" for way in ("a2t", "t2a") for name in ("r1", "r5", "r10", "map10")
    )
    for name, (low, high) in found.intervals.items():
        assert 0 <= low < found.figures[name] < high <= 100
    # Three captions of a clip are one draw: as wide as for a third of as many, or nearly.
    low, high = found.intervals["t2a_r10"]
    share = found.figures["t2a_r10"] / 100
    assert high - low > 2 * 100 * 1.96 * (share * (1 - share) / 150) ** 0.5 * 0.99


def test_one_group_has_no_intervals() -> None:
    gallery = PairedRows(gaussian(3, 2), gaussian(1, 2), torch.tensor([[0, 0], [1, 0], [2, 0]]))
    assert retrieve(torch.ones(3, 1), gallery.gallery()).intervals == {}


def test_rows_know_their_group() -> None:
    pairs = torch.tensor([[5, 1], [2, 1], [9, 4], [2, 7]])
    groups = PairedRows(gaussian(10, 2), gaussian(8, 2), pairs).gallery().groups
    assert groups[0].tolist() == [0, 0, 1] and groups[1].tolist() == [0, 1, 0]


def test_the_draws_are_the_same_each_time() -> None:
    pairs = torch.arange(40)[:, None].expand(-1, 2)
    gallery = PairedRows(gaussian(40, 4), gaussian(40, 4, 1), pairs).gallery()
    scores = gaussian(40, 40, 2)
    assert retrieve(scores, gallery) == retrieve(scores, gallery)
