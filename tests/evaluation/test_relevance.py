from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.evaluation import chance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.relevance import CaptionRelevance, RelevanceMatrix


def by_hand(owner: list[int], clips: int, ids: list[int] | None) -> Tensor:
    matrix = torch.zeros(clips, len(owner), dtype=torch.bool)
    for a in range(clips):
        for c, clip in enumerate(owner):
            same = ids is not None and any(
                ids[c] == ids[own] for own, of in enumerate(owner) if of == a
            )
            matrix[a, c] = clip == a or same
    return matrix


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 9), st.booleans())
def test_blocks_and_counts_are_those_of_the_matrix(
    data: st.DataObject, clips: int, with_ids: bool
) -> None:
    owner = data.draw(st.lists(st.integers(0, clips - 1), min_size=1, max_size=20))
    texts = st.integers(-3, 8)
    ids = data.draw(st.lists(texts, min_size=len(owner), max_size=len(owner)))
    expected = by_hand(owner, clips, ids if with_ids else None)
    caption_ids = torch.tensor(ids) if with_ids else None
    relevance = CaptionRelevance(torch.tensor(owner), clips, caption_ids=caption_ids)
    block = data.draw(st.integers(1, 7))
    for found in (relevance, RelevanceMatrix(expected)):
        assert found.shape == expected.shape
        rows = [found.block("a2t", i, min(i + block, clips)) for i in range(0, clips, block)]
        assert torch.equal(torch.cat(rows), expected)
        n = len(owner)
        columns = [found.block("t2a", i, min(i + block, n)) for i in range(0, n, block)]
        assert torch.equal(torch.cat(columns), expected.T)
        of_clip, of_caption = found.counts()
        assert of_clip.tolist() == expected.sum(dim=1).tolist()
        assert of_caption.tolist() == expected.sum(dim=0).tolist()
        assert chance_metrics(found) == chance_metrics(RelevanceMatrix(expected))


def test_what_is_no_relevance_is_refused() -> None:
    with pytest.raises(ValueError, match="indices of the 2 clips"):
        CaptionRelevance(torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match="2 captions, caption_ids 3"):
        CaptionRelevance(torch.tensor([0, 1]), 2, caption_ids=torch.arange(3))
    with pytest.raises(ValueError, match="bool matrix"):
        RelevanceMatrix(torch.eye(3))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.tensor([0.0, 1.9, 1.9]),  # was taken as [0, 1, 1]
        torch.tensor([0.0, torch.nan, 1.0]),
        torch.tensor([True, False, True]),
        torch.tensor([[0], [1], [1]]),
    ],
)
def test_what_are_no_integers_is_refused(wrong: Tensor) -> None:
    owner, similarity = torch.tensor([0, 1, 1]), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"caption_to_audio must hold integers \[C\], got torch"):
        retrieval_metrics(similarity, wrong)
    with pytest.raises(ValueError, match=r"caption_ids must hold integers \[C\], got torch"):
        retrieval_metrics(similarity, owner, caption_ids=wrong)
    for dtype in (torch.uint8, torch.int32):
        assert retrieval_metrics(similarity, owner.to(dtype), caption_ids=owner.to(dtype))
