"""Graded figures are trec_eval's where there are no ties, and the worst there are where all tie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval import retrieval_figures
from torch import Tensor

from atr_moco_plugin.evaluation.bootstrap import mean_intervals
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.graded import (
    GRADED_FIGURES,
    GradedMetrics,
    graded_measures,
    graded_names,
)
from atr_moco_plugin.evaluation.qrels import Qrels
from atr_moco_plugin.evaluation.relevance import CaptionRelevance

TREC_MEASURES = {"map_cut.10,16", "ndcg_cut.10", "success.5", "Rprec"}


def trec_eval(scores: Tensor, grades: Tensor, judged: Tensor) -> dict[str, list[float]]:
    """What pytrec_eval says of each query."""
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs the extra `test`")
    names = [f"i{item}" for item in range(scores.size(1))]
    qrels, run = {}, {}
    for row in range(len(scores)):
        where = judged[row].nonzero().flatten().tolist()
        qrels[str(row)] = {names[item]: int(grades[row, item]) for item in where}
        run[str(row)] = dict(zip(names, scores[row].tolist(), strict=True))
    found = pytrec_eval.RelevanceEvaluator(qrels, TREC_MEASURES).evaluate(run)
    return {name: [found[str(row)][name] for row in range(len(scores))] for name in GRADED_FIGURES}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 8),
    items=st.integers(1, 60),
    share=st.floats(0, 1),
    highest=st.integers(1, 5),
)
def test_the_measures_are_those_of_trec_eval(
    seed: int, queries: int, items: int, share: float, highest: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    # A permutation a row: no two scores tie, also in float32, which pytrec_eval takes.
    scores = torch.rand(queries, items, generator=rng).argsort(dim=1).double()
    judged = torch.rand(queries, items, generator=rng) < share
    judged[:, 0] = True  # trec_eval leaves out queries without a judgement
    grades = torch.randint(0, highest + 1, (queries, items), generator=rng) * judged
    expected = trec_eval(scores, grades, judged)
    for name, values in graded_measures(scores, grades).items():
        np.testing.assert_allclose(values.numpy(), expected[name], rtol=0, atol=1e-12)


def test_a_thousand_queries_are_those_of_trec_eval() -> None:
    """Also where R is larger than every cutoff, and scores are cosines."""
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, 200, generator=rng)
    grades = torch.randint(0, 4, (1000, 200), generator=rng)
    grades[torch.rand(1000, 200, generator=rng) > torch.rand(1000, 1, generator=rng)] = 0
    # Equal float32 numbers would tie.
    scores = scores.argsort(dim=1).argsort(dim=1).double()
    expected = trec_eval(scores, grades, torch.ones_like(grades, dtype=torch.bool))
    assert int((grades > 0).sum(dim=1).max()) > 16
    for name, values in graded_measures(scores, grades).items():
        np.testing.assert_allclose(values.numpy(), expected[name], rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), items=st.integers(2, 40), levels=st.integers(1, 4))
def test_ties_count_against_the_model(seed: int, items: int, levels: int) -> None:
    """No order of equal scores is worse than the one that is taken."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (5, items), generator=rng).double()
    grades = torch.randint(0, 3, (5, items), generator=rng)
    taken = graded_measures(scores, grades)
    for _ in range(5):
        broken = scores + 0.5 * torch.rand(5, items, generator=rng, dtype=torch.float64)
        for name, values in graded_measures(broken, grades).items():
            assert (values >= taken[name] - 1e-12).all(), name


def test_a_constant_score_finds_nothing_among_many() -> None:
    grades = torch.zeros(1, 100, dtype=torch.int64)
    grades[0, 0] = 2
    found = graded_measures(torch.ones(1, 100), grades)
    assert {name: float(value) for name, value in found.items()} == dict.fromkeys(found, 0.0)


def test_shapes_and_grades_are_checked() -> None:
    with pytest.raises(ValueError, match="must both be"):
        graded_measures(torch.zeros(1, 2), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="lowest is 0"):
        graded_measures(torch.zeros(1, 1), torch.tensor([[-1]]))


def qrels_of(grades: Tensor) -> Qrels:
    """Judgements of all queries that have one of 0 or more; -1 is not judged."""
    queries = (grades >= 0).any(dim=1).nonzero().flatten()
    counts = (grades[queries] >= 0).sum(dim=1)
    return Qrels(
        "judged.csv",
        queries,
        torch.cat([torch.tensor([0]), counts.cumsum(dim=0)]),
        (grades[queries] >= 0).nonzero()[:, 1],
        grades[queries][grades[queries] >= 0],
        grades.size(1),
    )


def test_collected_in_blocks_equals_the_whole() -> None:
    rng = torch.Generator().manual_seed(3)
    scores = torch.randn(50, 20, generator=rng)
    grades = torch.randint(-1, 3, (50, 20), generator=rng)
    grades[::3] = -1
    grades[4] = grades[4].clamp_max(0)
    whole = graded_measures(scores, grades.clamp_min(0))
    answerable = (grades > 0).any(dim=1)
    metrics = GradedMetrics(qrels_of(grades))
    for start in range(0, 50, 7):
        block = scores[start : start + 7]
        metrics("t2a", "dual", start, block, block > 0)
        metrics("t2a", "reranked_k4", start, -block, block > 0)
        metrics("a2t", "dual", start, block, block > 0)
    found = metrics.compute(torch.arange(50) // 2)
    assert found["qrels"] == "judged.csv"
    assert found["queries"] == int(answerable.sum())
    assert found["skipped"] == int((grades >= 0).any(dim=1).sum()) - found["queries"] == 1
    assert found["relevant"] == pytest.approx(float((grades > 0).sum() / answerable.sum()))
    for name, figure in zip(GRADED_FIGURES, graded_names(), strict=True):
        mean = 100 * float(whole[name][answerable].mean())
        assert found["systems"]["dual"][figure] == pytest.approx(mean, abs=1e-10)
    intervals = found["intervals"]
    clusters = (torch.arange(50) // 2)[answerable]
    assert intervals["clusters"] == len(clusters.unique())
    values = torch.stack([whole[name][answerable] for name in GRADED_FIGURES], dim=1)
    ends = mean_intervals(values, clusters)
    assert ends is not None
    for figure, (low, high) in zip(graded_names(), ends, strict=True):
        assert intervals["systems"]["dual"][figure] == pytest.approx(
            [100 * low, 100 * high], abs=1e-4
        )
        assert low < found["systems"]["dual"][figure] / 100 <= high
    worse = found["systems"]["reranked_k4"]
    assert worse["t2a_map_cut_16"] != found["systems"]["dual"]["t2a_map_cut_16"]


def test_one_relevant_clip_each_gives_the_figures_that_the_package_has() -> None:
    """With a single relevant clip, hits at 5 are R@5 and both mAP@10 agree."""
    rng = torch.Generator().manual_seed(1)
    audio, text = (
        torch.nn.functional.normalize(torch.randn(30, 4, generator=rng), dim=1) for _ in range(2)
    )
    owner = torch.arange(30)
    encoded = Encoded(), Encoded()
    for of, embeddings in zip(encoded, (audio, text), strict=True):
        of.add(embeddings, None)
    cosines = Cosines(*encoded)
    grades = torch.full((30, 30), -1)
    grades.fill_diagonal_(1)
    metrics = GradedMetrics(qrels_of(grades))
    figures = retrieval_figures(cosines, {"": CaptionRelevance(owner, 30)}, on_scores=metrics)
    found = metrics.compute(owner)["systems"]["dual"]
    assert found["t2a_map_cut_10"] == pytest.approx(figures["dual"]["t2a_map10"])
    assert found["t2a_success_5"] == pytest.approx(figures["dual"]["t2a_r5"])
    assert found["t2a_Rprec"] == pytest.approx(figures["dual"]["t2a_r1"])


def test_a_single_cluster_has_no_interval() -> None:
    metrics = GradedMetrics(qrels_of(torch.tensor([[1, 0], [0, 1]])))
    metrics("t2a", "dual", 0, torch.eye(2), torch.eye(2) > 0)
    found = metrics.compute(torch.zeros(2, dtype=torch.int64))
    assert found["intervals"]["clusters"] == 1 and found["intervals"]["systems"] == {}
