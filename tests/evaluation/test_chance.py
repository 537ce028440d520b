from __future__ import annotations

from itertools import permutations
from statistics import mean

import pytest
import torch

from atr_moco_plugin.evaluation import chance_metrics, relevance_metrics
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix


@pytest.mark.parametrize("relevant_items", [1, 2, 4, 6])
def test_equals_the_mean_over_all_orders(relevant_items: int) -> None:
    relevant = torch.zeros(1, 6, dtype=torch.bool)
    relevant[0, :relevant_items] = True
    relevance = RelevanceMatrix(relevant)
    results = [
        relevance_metrics(torch.tensor([order]), relevance) for order in permutations(range(6))
    ]
    chance = chance_metrics(relevance)
    for name in ("a2t_r1", "a2t_r5", "a2t_r10", "a2t_map10"):
        assert chance[name] == pytest.approx(mean(result[name] for result in results)), name


def test_matches_random_scores_with_unequal_numbers_of_relevant_items() -> None:
    generator = torch.Generator().manual_seed(0)
    relevant = torch.rand(40, 60, generator=generator) < torch.linspace(0, 0.5, 40)[:, None]
    relevance = RelevanceMatrix(relevant)
    results = [
        relevance_metrics(torch.rand(40, 60, generator=generator), relevance) for _ in range(200)
    ]
    chance = chance_metrics(relevance)
    assert chance["a2t_skipped"] == results[0]["a2t_skipped"] >= 1
    for name, value in chance.items():
        # 200 draws of 40 or 60 queries: four standard errors of a percentage are below 2.3.
        assert value == pytest.approx(mean(result[name] for result in results), abs=2.3), name


def test_known_values() -> None:
    chance = chance_metrics(RelevanceMatrix(torch.eye(975, dtype=torch.bool)))
    assert chance["t2a_r1"] == pytest.approx(100 / 975)
    assert chance["t2a_r10"] == pytest.approx(1000 / 975)
    assert chance["t2a_medr"] == 488
    for items in range(2, 200, 2):  # half of the queries exactly, whatever the rounding
        chance = chance_metrics(RelevanceMatrix(torch.eye(items, dtype=torch.bool)))
        assert chance["a2t_medr"] == items // 2
    everything = chance_metrics(RelevanceMatrix(torch.ones(3, 30, dtype=torch.bool)))
    assert everything["r_sum"] == 600
    assert everything["a2t_map10"] == pytest.approx(100)


def test_refuses_a_set_without_a_relevant_pair() -> None:
    with pytest.raises(ValueError, match="at least one relevant pair"):
        chance_metrics(RelevanceMatrix(torch.zeros(3, 3, dtype=torch.bool)))
