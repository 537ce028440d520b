from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.encoders.tokens import AudioTokens, TextTokens
from atr_moco_plugin.evaluation import caption_relevance, chance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.metrics import metrics_from, relevance_metrics
from atr_moco_plugin.evaluation.retrieval import Encoded, encode_text, evaluate_retrieval

CLIPS, CAPTIONS, K = 9, 21, 4
OWNER = torch.arange(CAPTIONS) % CLIPS
# Captions 3 and 10, of different clips, have the same text.
CAPTION_IDS = torch.arange(CAPTIONS).index_fill(0, torch.tensor([10]), 3)
RERANKED = ("reranked", "reranked_blip", "reranked_albef")
TAU = 5.0  # so high that the logits of a fresh head count beside the cosines


class Case:
    """A tiny model in eval mode, and clips and captions padded to their longest."""

    def __init__(self, make_model: Any, make_batch: Any, fusion: str) -> None:
        self.model = make_model(fusion=fusion).eval()
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            # Weights large enough for logits and cosines to disagree.
            for parameter in self.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.2)
        self.audio = make_batch(b=CLIPS, seed=1)["audio"]
        self.text = make_batch(b=CAPTIONS, seed=2)["text"]

    @torch.no_grad()
    def encoded(self, audio_batch: int, text_batch: int, tokens: bool = True) -> tuple[Any, Any]:
        """Batches cut to their own longest item, as a data loader makes them."""
        audio = Encoded()
        for rows in torch.arange(CLIPS).split(audio_batch):
            lengths = self.audio["lengths"][rows]
            embeddings, states = self.model.audio(
                self.audio["waveforms"][rows, : int(lengths.max())], lengths
            )
            audio.add(embeddings, states if tokens else None)
        batches = []
        for rows in torch.arange(CAPTIONS).split(text_batch):
            longest = int(self.text["mask"][rows].sum(dim=1).max())
            batches.append(tuple(self.text[x][rows, :longest] for x in ("input_ids", "mask")))
        return audio, encode_text(self.model, batches, keep_tokens=tokens)

    def evaluate(self, batches: tuple[int, int] = (4, 8), **options: Any) -> dict[str, Any]:
        defaults = {"caption_to_audio": OWNER, "caption_ids": CAPTION_IDS, "rerank_k": K, "temperature": TAU}
        relevant = options.pop("relevant", caption_relevance(OWNER, CLIPS))
        return evaluate_retrieval(
            self.model, *self.encoded(*batches), relevant, **(defaults | options)
        )

    @functools.cached_property
    def cosines(self) -> Tensor:
        with torch.no_grad():
            return self.model.audio(**self.audio)[0] @ self.model.text(**self.text)[0].T

    @functools.cached_property
    def logits(self) -> Tensor:
        """Both logits of every pair, ``[A, C, 2]``, one pair a pass."""
        with torch.no_grad():
            audio = self.model.audio(**self.audio)[1]
            text = self.model.text(**self.text)[1]
            rows = [
                self.model.match(
                    TextTokens(*(x[c : c + 1] for x in text)),
                    AudioTokens(*(x[a : a + 1] for x in audio)),
                )[0]
                for a in range(CLIPS)
                for c in range(CAPTIONS)
            ]
        return torch.stack(rows).reshape(CLIPS, CAPTIONS, 2)

    def reranked(self, name: str) -> tuple[Tensor, Tensor]:
        """Scores of both directions by sorting each query's candidates by hand."""
        no, yes = self.logits.unbind(-1)
        scores = {
            "reranked": yes - no + self.cosines / TAU,
            "reranked_blip": yes + self.cosines,
            "reranked_albef": yes,
        }[name]
        a2t = torch.stack([by_hand(self.cosines[a], scores[a]) for a in range(CLIPS)])
        columns = [by_hand(self.cosines[:, c], scores[:, c]) for c in range(CAPTIONS)]
        return a2t, torch.stack(columns, dim=1)


def by_hand(cosines: Tensor, scores: Tensor) -> Tensor:
    """Minus the place of each item: the K of highest cosine by score, then the rest by cosine."""
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
    order = sorted(order[:K], key=lambda i: -scores[i]) + order[K:]
    places = torch.empty(len(order))
    places[torch.tensor(order)] = -torch.arange(len(order), dtype=torch.float32)
    return places


@pytest.fixture(params=["blip", "albef"])
def case(request, tiny_model, tiny_batch) -> Case:
    return Case(tiny_model, tiny_batch, request.param)


def test_dual_figures_are_those_of_the_cosines(case: Case) -> None:
    result = case.evaluate(rerank_k=0)
    expected = retrieval_metrics(case.cosines, OWNER, caption_ids=CAPTION_IDS)
    assert result["dual"] == pytest.approx(expected)
    assert "t2a_r1_dup" in result["dual"]
    assert result["chance"] == chance_metrics(caption_relevance(OWNER, CLIPS))
    assert (result["clips"], result["captions"]) == (CLIPS, CAPTIONS)
    assert result.keys() == {"clips", "captions", "dual", "chance"}


def test_reranked_figures_are_those_of_sorting_every_query_by_hand(case: Case) -> None:
    result = case.evaluate()
    for name in RERANKED:
        a2t, t2a = case.reranked(name)
        expected = retrieval_metrics(a2t, OWNER, caption_ids=CAPTION_IDS, t2a_scores=t2a)
        assert result[name] == pytest.approx(expected)
        # Worth computing: re-ranking a model with random weights does change the figures.
        assert result[name]["a2t_map10"] != pytest.approx(result["dual"]["a2t_map10"])
        assert result[name]["t2a_map10"] != pytest.approx(result["dual"]["t2a_map10"])
    assert result["rerank_k"] == K


def test_the_ways_of_reranking_differ(case: Case) -> None:
    # On logits as close as those of a fresh head the cosine decides.
    with torch.no_grad():
        case.model.head.classifier.weight.mul_(0.05)
    result = case.evaluate()
    assert result["reranked_blip"] != pytest.approx(result["reranked_albef"])


def test_a_shift_of_both_logits_of_a_pair_leaves_the_log_odds(case: Case, monkeypatch) -> None:
    match, expected = case.model.match, case.evaluate()

    def shifted(text: TextTokens, audio: AudioTokens) -> Tensor:
        return match(text, audio) + 7 * text.input_ids[:, 1:2].float()

    monkeypatch.setattr(case.model, "match", shifted)
    found = case.evaluate()
    assert found["reranked"] == pytest.approx(expected["reranked"])
    assert found["reranked_albef"] != pytest.approx(expected["reranked_albef"])


@pytest.mark.parametrize("batches", [(1, 1), (CLIPS, CAPTIONS), (5, 2)])
@pytest.mark.parametrize("pairs", [1, 7, 1000])
def test_figures_do_not_depend_on_batch_sizes(case: Case, batches, pairs: int) -> None:
    expected, found = case.evaluate(), case.evaluate(batches, batch_size=pairs)
    assert found.keys() == expected.keys()
    for name in ("dual", *RERANKED, "chance"):
        assert found[name] == pytest.approx(expected[name]), name


def test_every_needed_pair_is_scored_once(case: Case, monkeypatch) -> None:
    match, sizes = case.model.match, []

    def counted(text: TextTokens, audio: AudioTokens) -> Tensor:
        sizes.append(len(audio.states))
        return match(text, audio)

    monkeypatch.setattr(case.model, "match", counted)
    case.evaluate(batch_size=16)
    needed = {(a, c) for a in range(CLIPS) for c in case.cosines[a].topk(K).indices.tolist()}
    needed |= {(a, c) for c in range(CAPTIONS) for a in case.cosines[:, c].topk(K).indices.tolist()}
    assert sum(sizes) == len(needed) and max(sizes) == 16


def test_relevance_without_one_clip_a_caption(case: Case) -> None:
    # Three classes, as labels: a text belongs to several clips.
    relevant = torch.arange(CLIPS)[:, None] % 3 == torch.arange(CAPTIONS)[None, :] % 3
    result = case.evaluate(relevant=relevant, caption_to_audio=None)
    assert result["dual"] == pytest.approx(relevance_metrics(case.cosines, relevant))
    assert "a2t_precision1" in result["dual"]
    for name in RERANKED:
        assert result[name] == pytest.approx(metrics_from(*case.reranked(name), relevant))
    assert result["chance"] == chance_metrics(relevant)


def test_autocast_does_not_round_the_cosines(case: Case) -> None:
    encoded, relevant = case.encoded(4, 8), caption_relevance(OWNER, CLIPS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = evaluate_retrieval(case.model, *encoded, relevant, caption_to_audio=OWNER)
    assert result["dual"] == pytest.approx(retrieval_metrics(case.cosines, OWNER))


def test_encoded_keeps_the_valid_tokens_and_no_padding(case: Case) -> None:
    audio, text = case.encoded(4, 8)
    with torch.no_grad():
        u, expected = case.model.text(**case.text)
        a = case.model.audio(**case.audio)[0]
    torch.testing.assert_close(audio.embeddings, a, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.embeddings, u, atol=1e-5, rtol=1e-5)

    rows = torch.tensor([20, 0, 20, 5])
    tokens = text.text_tokens(rows)
    longest = int(expected.mask[rows].sum(dim=1).max())
    mask = expected.mask[rows, :longest]
    assert torch.equal(tokens.mask, mask)
    assert torch.equal(tokens.input_ids, expected.input_ids[rows, :longest])
    torch.testing.assert_close(
        tokens.states[mask], expected.states[rows, :longest][mask], atol=1e-5, rtol=1e-5
    )
    assert not tokens.states[~mask].any() and (~mask).any()
    bytes_kept = sum(x.untyped_storage().nbytes() for x in text._states)
    assert bytes_kept == int(expected.mask.sum()) * expected.states.size(2) * 4
    assert not text.embeddings.requires_grad and not tokens.states.requires_grad


def test_reranking_needs_tokens(case: Case) -> None:
    encoded, relevant = case.encoded(4, 8, tokens=False), caption_relevance(OWNER, CLIPS)
    assert "dual" in evaluate_retrieval(case.model, *encoded, relevant, caption_to_audio=OWNER)
    with pytest.raises(ValueError, match="`rerank_k` is 4, but token states were not kept"):
        evaluate_retrieval(
            case.model, *encoded, relevant, caption_to_audio=OWNER, rerank_k=4
        )


def test_what_does_not_fit_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"`relevant` has shape \[21, 9\], .*9 clips and 21 cap"):
        case.evaluate(relevant=caption_relevance(OWNER, CLIPS).T)
    with pytest.raises(ValueError, match="k >= 1"):
        case.evaluate(rerank_k=-1)
    with pytest.raises(ValueError, match="Nothing was encoded"):
        evaluate_retrieval(case.model, Encoded(), Encoded(), torch.ones(0, 0, dtype=torch.bool))
