from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.evaluation import metrics_from, rerank, retrieval_metrics


class Recorder:
    """A scorer that reads logits from a table and notes what it was asked."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.pairs: list[tuple[int, int]] = []
        self.sizes: list[int] = []

    def __call__(self, audio: Tensor, text: Tensor) -> Tensor:
        self.pairs += zip(audio.tolist(), text.tolist(), strict=True)
        self.sizes.append(len(audio))
        return self.logits[audio, text]


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


@settings(max_examples=60, deadline=None)
@given(
    clips=st.integers(1, 7),
    captions=st.integers(1, 12),
    k=st.integers(1, 14),
    levels=st.sampled_from([2, 1000]),
    scale=st.sampled_from([1.0, 1e-6, 1e30]),
    add=st.booleans(),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_matches_sorting_by_hand(
    clips: int,
    captions: int,
    k: int,
    levels: int,
    scale: float,
    add: bool,
    batch_size: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, captions)
    # Sixteenths are exact, so that the oracle's sums tie where the tensors' do.
    similarity = torch.randint(-levels, levels, shape, generator=generator) / 16
    logits = scale * torch.randint(-levels, levels, shape, generator=generator).double()
    scorer = Recorder(logits)
    mode = "logit+cosine" if add else "logit"
    a2t, t2a = rerank(similarity, scorer, k, mode=mode, batch_size=batch_size)

    for a in range(clips):
        expected = oracle_order(similarity[a].tolist(), logits[a].tolist(), k, add)
        assert order_of(a2t[a]) == expected
    for c in range(captions):
        expected = oracle_order(similarity[:, c].tolist(), logits[:, c].tolist(), k, add)
        assert order_of(t2a[:, c]) == expected
    assert len(set(scorer.pairs)) == len(scorer.pairs)
    assert max(scorer.sizes) <= batch_size


def _case(clips: int = 30, captions: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(captions) % clips
    return torch.rand(clips, captions, generator=generator), owner


def test_perfect_scorer_lifts_every_query_whose_match_is_among_the_candidates() -> None:
    similarity, owner = _case()
    k = 10
    relevant = owner == torch.arange(len(similarity))[:, None]
    before = retrieval_metrics(similarity, owner)
    a2t, t2a = rerank(similarity, lambda a, c: 100.0 * relevant[a, c], k)
    after = metrics_from(a2t, t2a, relevant)
    for way in ("a2t", "t2a"):
        assert after[f"{way}_r1"] == before[f"{way}_r10"] < 100
        # A query without a match in its head keeps the rank it had: median over all of them.
        assert after[f"{way}_r10"] == before[f"{way}_r10"]


def test_one_candidate_changes_no_metric() -> None:
    similarity, owner = _case()
    a2t, t2a = rerank(similarity, Recorder(torch.randn(30, 60)), 1)
    expected = retrieval_metrics(similarity, owner)
    assert retrieval_metrics(a2t, owner, t2a_scores=t2a) == pytest.approx(expected)


def test_more_candidates_than_there_are_means_all_of_them() -> None:
    similarity, owner = _case()
    logits = torch.randn(30, 60, generator=torch.Generator().manual_seed(1))
    scorer = Recorder(logits)
    a2t, t2a = rerank(similarity, scorer, 1000, mode="logit")
    assert len(scorer.pairs) == 30 * 60
    expected = retrieval_metrics(logits, owner)
    assert retrieval_metrics(a2t, owner, t2a_scores=t2a) == pytest.approx(expected)


def test_scores_exactly_the_pairs_that_either_direction_needs() -> None:
    similarity, _ = _case()
    scorer = Recorder(torch.zeros(30, 60))
    rerank(similarity, scorer, 4, batch_size=7)
    needed = {(a, c) for a in range(30) for c in similarity[a].topk(4).indices.tolist()}
    needed |= {(a, c) for c in range(60) for a in similarity[:, c].topk(4).indices.tolist()}
    assert scorer.pairs == sorted(needed)


def test_does_not_depend_on_the_batch_size() -> None:
    similarity, _ = _case()
    logits = torch.randn(30, 60, generator=torch.Generator().manual_seed(2))
    first = rerank(similarity, Recorder(logits), 9, batch_size=1)
    second = rerank(similarity, Recorder(logits), 9, batch_size=4096)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda a, c: torch.zeros(len(a), 2), "one logit a pair"),
        (lambda a, c: torch.full((len(a),), float("nan")), "not finite"),
    ],
)
def test_refuses_what_a_scorer_must_not_return(
    scorer: Callable[[Tensor, Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rerank(torch.eye(3), scorer, 2)


def test_refuses_bad_arguments() -> None:
    scorer = Recorder(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="k >= 1"):
        rerank(torch.eye(3), scorer, 0)
    with pytest.raises(ValueError, match="Unknown mode 'cosine'"):
        rerank(torch.eye(3), scorer, 1, mode="cosine")
    with pytest.raises(ValueError, match="must be a matrix"):
        rerank(torch.empty(0, 3), scorer, 1)
    with pytest.raises(ValueError, match="not finite"):
        rerank(torch.full((3, 3), float("nan")), scorer, 1)
    assert scorer.pairs == []
