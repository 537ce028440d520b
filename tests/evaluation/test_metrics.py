from __future__ import annotations

from statistics import mean, median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.evaluation import metrics, relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.relevance import CaptionRelevance, RelevanceMatrix


def oracle_direction(scores: list[list[float]], relevant: list[list[bool]]) -> dict[str, float]:
    """Sorts every query's items by hand: higher scores first, irrelevant ones first in a tie."""
    ranks, precisions = [], []
    for row, truth in zip(scores, relevant, strict=True):
        if not any(truth):
            continue
        ordered = [
            is_relevant
            for _, is_relevant in sorted(
                zip(row, truth, strict=True), key=lambda item: (-item[0], item[1])
            )
        ]
        ranks.append(ordered.index(True) + 1)
        total = 0.0
        for place, is_relevant in enumerate(ordered[:10], start=1):
            if is_relevant:
                total += sum(ordered[:place]) / place
        precisions.append(total / min(10, sum(truth)))
    result = {f"r{k}": 100 * mean(float(rank <= k) for rank in ranks) for k in (1, 5, 10)}
    result["medr"] = float(median(ranks))
    result["map10"] = 100 * mean(precisions)
    result["skipped"] = float(len(scores) - len(ranks))
    return result


def oracle(similarity: Tensor, relevant: Tensor) -> dict[str, float]:
    a2t = oracle_direction(similarity.tolist(), relevant.tolist())
    t2a = oracle_direction(similarity.T.tolist(), relevant.T.tolist())
    result = {f"a2t_{name}": value for name, value in a2t.items()}
    result |= {f"t2a_{name}": value for name, value in t2a.items()}
    result["r_sum"] = sum(result[f"{way}_r{k}"] for way in ("a2t", "t2a") for k in (1, 5, 10))
    return result


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity with many ties, one to five captions a clip in any order, shared texts."""
    clips = draw(st.integers(1, 14))
    owner = [a for a in range(clips) for _ in range(draw(st.integers(1, 5)))]
    owner = draw(st.permutations(owner))
    texts = draw(st.lists(st.integers(-4, 25), min_size=len(owner), max_size=len(owner)))
    levels = draw(st.sampled_from([1, 3, 12, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scores = torch.randint(-levels, levels + 1, (clips, len(owner)), generator=generator)
    return scores / levels, torch.tensor(owner), torch.tensor(texts)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_matches_sorting_by_hand(case: tuple[Tensor, Tensor, Tensor]) -> None:
    similarity, owner, texts = case
    result = retrieval_metrics(similarity, owner, caption_ids=texts)

    clips, captions = similarity.shape
    own = [[int(owner[c]) == a for c in range(captions)] for a in range(clips)]
    shared = [
        [
            any(texts[c] == texts[o] for o in range(captions) if owner[o] == a)
            for c in range(captions)
        ]
        for a in range(clips)
    ]
    expected = oracle(similarity, torch.tensor(own))
    expected |= {f"{k}_dup": v for k, v in oracle(similarity, torch.tensor(shared)).items()}
    expected |= {"clips": clips, "captions": captions}
    assert result == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 2**32))
def test_order_of_clips_and_captions_does_not_matter(
    case: tuple[Tensor, Tensor, Tensor], seed: int
) -> None:
    similarity, owner, texts = case
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(similarity.size(0), generator=generator)
    columns = torch.randperm(similarity.size(1), generator=generator)
    shuffled = retrieval_metrics(
        similarity[rows][:, columns],
        rows.argsort()[owner[columns]],
        caption_ids=texts[columns],
    )
    assert shuffled == pytest.approx(retrieval_metrics(similarity, owner, caption_ids=texts))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.02, 0.9),
    st.integers(0, 2**32),
)
def test_any_relevance_matches_sorting_by_hand(
    clips: int, texts: int, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    relevant = torch.rand(clips, texts, generator=generator) < density
    relevant[0, 0] = True
    similarity = torch.randint(-6, 6, (clips, texts), generator=generator)
    result = relevance_metrics(similarity, RelevanceMatrix(relevant))
    assert result == pytest.approx(oracle(similarity, relevant), abs=1e-9)
    assert tuple(result) == metrics.FIGURES


def test_constant_scores_are_the_worst_case() -> None:
    result = retrieval_metrics(torch.zeros(20, 20), torch.arange(20))
    assert result["r_sum"] == 0
    assert result["a2t_medr"] == result["t2a_medr"] == 20


def test_negative_cosines_count() -> None:
    similarity = torch.full((3, 3), -0.9).fill_diagonal_(-0.1)
    assert retrieval_metrics(similarity, torch.arange(3))["r_sum"] == 600


@pytest.mark.parametrize("texts", [3, 7, 12, 30])
def test_minus_infinity_is_an_ordinary_lowest_score(texts: int) -> None:
    generator = torch.Generator().manual_seed(texts)
    relevant = torch.rand(20, texts, generator=generator) < 0.5
    similarity = torch.randn(20, texts, generator=generator)
    similarity[torch.rand(20, texts, generator=generator) < 0.7] = -float("inf")
    result = relevance_metrics(similarity, RelevanceMatrix(relevant))
    assert result == pytest.approx(oracle(similarity, relevant))


def test_clip_without_captions_is_skipped_as_a_query_and_stays_a_candidate() -> None:
    similarity = torch.tensor([[0.9, 0.1], [0.1, 0.5], [0.0, 0.8]])
    result = retrieval_metrics(similarity, torch.tensor([0, 1]))
    assert (result["a2t_skipped"], result["t2a_skipped"]) == (1, 0)
    assert (result["a2t_r1"], result["t2a_r1"]) == (100, 50)


def test_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    similarity = torch.tensor([[0.9, 0.1], [0.9, 0.1]])  # ranks 1 and 2
    assert retrieval_metrics(similarity, torch.arange(2))["a2t_medr"] == 1.5


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = torch.randn(23, 57, generator=torch.Generator().manual_seed(0))
    relevance = CaptionRelevance(torch.arange(57) % 20, 23)  # clips 20 to 22 have no caption
    whole = relevance_metrics(similarity, relevance)
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", 2)
    assert relevance_metrics(similarity, relevance) == pytest.approx(whole)
    assert whole["a2t_skipped"] == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_dtypes(dtype: torch.dtype) -> None:
    similarity = (10 * torch.eye(4)).to(dtype)
    assert retrieval_metrics(similarity, torch.arange(4))["r_sum"] == 600


def test_errors_name_the_problem() -> None:
    good, target = torch.eye(3), torch.arange(3)
    broken = good.clone()
    broken[1, 2] = float("nan")
    with pytest.raises(ValueError, match="1 of 9 scores are NaN"):
        retrieval_metrics(broken, target)
    with pytest.raises(ValueError, match="3 captions, caption_to_audio 2"):
        retrieval_metrics(good, target[:2])
    with pytest.raises(ValueError, match="indices of the 3 clips"):
        retrieval_metrics(good, target + 1)
    with pytest.raises(ValueError, match="indices of the 3 clips"):
        retrieval_metrics(good, target - 1)
    with pytest.raises(ValueError, match="3 captions, caption_ids 2"):
        retrieval_metrics(good, target, caption_ids=target[:2])
    with pytest.raises(ValueError, match="must be a matrix"):
        retrieval_metrics(torch.empty(0, 0), target[:0])
    with pytest.raises(ValueError, match="same shape"):
        relevance_metrics(good[:2], RelevanceMatrix(torch.eye(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="nothing to retrieve"):
        relevance_metrics(good, RelevanceMatrix(torch.zeros(3, 3, dtype=torch.bool)))
