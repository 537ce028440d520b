from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import metrics
from atr_moco_plugin.evaluation.hubness import hubness, k_occurrence, top_counts


def _unit(rows: int, seed: int) -> torch.Tensor:
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_k_occurrence_counts_best_items(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, items = _unit(50, 0), _unit(23, 1)
    expected = np.zeros(23)
    for row in (queries.double() @ items.double().T).numpy():
        expected[np.argsort(-row)[:k]] += 1
    assert k_occurrence(queries, items, k).tolist() == expected.tolist()
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", 100)  # many blocks
    assert k_occurrence(queries, items, k).tolist() == expected.tolist()


def test_figures_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    occurrence = k_occurrence(_unit(300, 2), _unit(120, 3))
    found = hubness(occurrence)
    values = occurrence.numpy()
    assert found["skewness"] == pytest.approx(stats.skew(values), abs=1e-12)
    assert found["never"] == 100 * (values == 0).mean()
    assert found["largest"] == values.max() == values[found["largest_item"]]
    assert found["mean"] == pytest.approx(10 * 300 / 120)


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=5),
    st.integers(1, 9),
    st.permutations(range(7)),
)
def test_ties_share_places_in_any_order(rows: list[list[int]], k: int, order: list[int]) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    counts = top_counts(scores, k)
    assert math.isclose(float(counts.sum()), min(k, 7) * len(rows))
    assert torch.allclose(top_counts(scores[:, order], k), counts[order])
    for row in scores:  # an item is in whole where fewer than k are as good
        one = top_counts(row[None], k)
        surely = torch.tensor([(row >= x).sum() <= k for x in row])
        assert (one[surely] == 1).all()


def test_a_collapsed_model_has_no_hubs() -> None:
    """All scores are equal: no item is preferred, whatever a sort would do."""
    same = torch.ones(1, 6) / math.sqrt(6)
    found = hubness(k_occurrence(same.expand(90, 6), same.expand(31, 6)))
    assert found["skewness"] == 0.0 and found["never"] == 0.0
    assert found["largest"] == pytest.approx(found["mean"]) == pytest.approx(900 / 31)


def test_one_item_that_is_always_found() -> None:
    found = hubness(torch.tensor([100.0] + [0.0] * 99))
    assert found["skewness"] == pytest.approx(98 / math.sqrt(99))
    assert (found["never"], found["largest"], found["largest_item"]) == (99.0, 100.0, 0)


def test_nothing_was_asked() -> None:
    for empty in (torch.zeros(0), torch.zeros(5)):
        with pytest.raises(InputError, match="at least one query and one item"):
            hubness(empty.double())
