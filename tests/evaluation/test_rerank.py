"""The law of re-ranking: the k best by cosine in the order of their new score, then the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval import directed_caption_metrics, directed_metrics
from torch import Tensor

from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.evaluation.relevance import CaptionRelevance
from atr_moco_plugin.evaluation.rerank import (
    DUAL,
    Candidates,
    System,
    system_scores,
    top_candidates,
)


def rerank(cosines: Tensor, logits: Tensor, k: int, score: str = "reranked_albef") -> Tensor:
    """Scores ``[n, items]`` of the queries in the rows, with one match logit a pair."""
    items = top_candidates(cosines, k)
    match = logits.gather(1, items)
    candidates = Candidates(items, torch.stack([torch.zeros_like(match), match], dim=-1))
    ((_, scores),) = system_scores([System(k, score)], cosines, candidates)
    return scores


def rerank_both(similarity: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores of both directions, each ``[A, C]``."""
    return rerank(similarity, logits, k), rerank(similarity.T, logits.T, k).T


def oracle_order(cosine: list[float], logit: list[float], k: int, add: bool) -> list[set[int]]:
    """Groups of equal items, best first: the k with the highest cosine by score, then the rest."""
    by_cosine = sorted(range(len(cosine)), key=lambda i: -cosine[i])
    groups = []
    for items, key in (
        (by_cosine[:k], [x + (c if add else 0) for x, c in zip(logit, cosine, strict=True)]),
        (by_cosine[k:], cosine),
    ):
        for value in sorted({key[i] for i in items}, reverse=True):
            groups.append({i for i in items if key[i] == value})
    return groups


def order_of(scores: Tensor) -> list[set[int]]:
    values = scores.tolist()
    return [
        {i for i, x in enumerate(values) if x == value}
        for value in sorted(set(values), reverse=True)
    ]


@settings(max_examples=100, deadline=None)
@given(
    queries=st.integers(1, 7),
    items=st.integers(1, 12),
    k=st.integers(1, 14),
    levels=st.sampled_from([2, 1000]),
    scale=st.sampled_from([1.0, 1e-6, 1e30]),
    add=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_matches_sorting_by_hand(
    queries: int, items: int, k: int, levels: int, scale: float, add: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (queries, items)
    # Sixteenths are exact, so that the oracle's sums tie where the tensors' do.
    cosines = torch.randint(-levels, levels, shape, generator=generator) / 16
    logits = scale * torch.randint(-levels, levels, shape, generator=generator).double()
    scores = rerank(cosines, logits, k, "reranked_blip" if add else "reranked_albef")
    for query in range(queries):
        expected = oracle_order(cosines[query].tolist(), logits[query].tolist(), k, add)
        assert order_of(scores[query]) == expected


def _case(clips: int = 30, captions: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(captions) % clips
    return torch.rand(clips, captions, generator=generator), owner


def test_perfect_logits_lift_every_query_whose_match_is_among_the_candidates() -> None:
    similarity, owner = _case()
    relevant = owner == torch.arange(len(similarity))[:, None]
    before = retrieval_metrics(similarity, owner)
    scores = rerank_both(similarity, 100.0 * relevant, k=10)
    after = directed_metrics(*scores, CaptionRelevance(owner, len(similarity)))
    for way in ("a2t", "t2a"):
        assert after[f"{way}_r1"] == before[f"{way}_r10"] < 100
        # A query without a match among its candidates keeps the rank it had.
        assert after[f"{way}_r10"] == before[f"{way}_r10"]


def test_one_candidate_changes_no_metric() -> None:
    similarity, owner = _case()
    scores = rerank_both(similarity, torch.randn(30, 60), 1)
    expected = retrieval_metrics(similarity, owner)
    assert directed_caption_metrics(*scores, owner) == pytest.approx(expected)


def test_more_candidates_than_there_are_means_all_of_them() -> None:
    similarity, owner = _case()
    logits = torch.randn(30, 60, generator=torch.Generator().manual_seed(1))
    scores = rerank_both(similarity, logits, 1000)
    expected = retrieval_metrics(logits, owner)
    assert directed_caption_metrics(*scores, owner) == pytest.approx(expected)


def test_the_lower_index_wins_a_tie_for_the_last_place() -> None:
    cosines = torch.tensor([[0.5, 0.9, 0.5, 0.5]])
    assert top_candidates(cosines, 2).tolist() == [[1, 0]]
    assert top_candidates(cosines, 9).tolist() == [[1, 0, 2, 3]]


def test_cosines_pass_as_they_are() -> None:
    similarity, _ = _case()
    ((system, scores),) = system_scores([DUAL], similarity)
    assert system == DUAL and scores is similarity
