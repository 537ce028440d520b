from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from retrieval import (
    directed_caption_metrics,
    directed_metrics,
    evaluate_retrieval,
    retrieval_figures,
)
from torch import Tensor

from atr_moco_plugin.evaluation import (
    chance_metrics,
    metrics,
    relevance_metrics,
    retrieval_metrics,
)
from atr_moco_plugin.evaluation.candidates import find_pairs, match_pairs
from atr_moco_plugin.evaluation.captions import distinct_captions
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encode import encode_captions
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.relevance import CaptionRelevance, RelevanceMatrix
from atr_moco_plugin.evaluation.retrieval import dual_figure_names
from atr_moco_plugin.tokens import AudioTokens, TextTokens

CLIPS, CAPTIONS, K = 9, 21, 4
OWNER = torch.arange(CAPTIONS) % CLIPS
# Captions 3 and 10, of different clips, have the same text.
CAPTION_IDS = torch.arange(CAPTIONS).index_fill(0, torch.tensor([10]), 3)
STRICT = CaptionRelevance(OWNER, CLIPS)
DUPLICATES = CaptionRelevance(OWNER, CLIPS, caption_ids=CAPTION_IDS)
RERANKED = ("reranked", "reranked_blip", "reranked_albef")
TAU = 5.0  # so high that the logits of a fresh head count beside the cosines


class Case:
    """A tiny model in eval mode, and clips and captions padded to their longest."""

    def __init__(self, make_model: Any, make_batch: Any, fusion: str) -> None:
        self.model = make_model(fusion=fusion).eval()
        noise = torch.Generator().manual_seed(4)
        with torch.no_grad():
            # Weights large enough for logits and cosines to disagree.
            for parameter in self.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.2)
        self.audio = make_batch(b=CLIPS, seed=1)["audio"]
        self.text = make_batch(b=CAPTIONS, seed=2)["text"]
        for part in self.text.values():
            part[10] = part[3]

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
        captions = distinct_captions(self.text["input_ids"], self.text["mask"], text_batch)
        return audio, encode_captions(self.model, captions, torch.device("cpu"), keep_tokens=tokens)

    def evaluate(self, batches: tuple[int, int] = (4, 8), **options: Any) -> dict[str, Any]:
        defaults = {"duplicates": DUPLICATES, "rerank_k": [K], "temperature": TAU}
        relevance = options.pop("relevance", STRICT)
        return evaluate_retrieval(
            self.model, *self.encoded(*batches), relevance, **(defaults | options)
        )

    @functools.cached_property
    def cosines(self) -> Tensor:
        with torch.no_grad():
            cosines = self.model.audio(**self.audio)[0] @ self.model.text(**self.text)[0].T
        cosines[:, 10] = cosines[:, 3]  # the same caption, to the last bit
        return cosines

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
        logits = torch.stack(rows).reshape(CLIPS, CAPTIONS, 2)
        logits[:, 10] = logits[:, 3]
        return logits

    def reranked(self, name: str, k: int = K) -> tuple[Tensor, Tensor]:
        """Scores of both directions by sorting each query's candidates by hand."""
        no, yes = self.logits.unbind(-1)
        scores = {
            "reranked": yes - no + self.cosines / TAU,
            "reranked_blip": yes + self.cosines,
            "reranked_albef": yes,
        }[name]
        a2t = torch.stack([by_hand(self.cosines[a], scores[a], k) for a in range(CLIPS)])
        columns = [by_hand(self.cosines[:, c], scores[:, c], k) for c in range(CAPTIONS)]
        return a2t, torch.stack(columns, dim=1)


def by_hand(cosines: Tensor, scores: Tensor, k: int) -> Tensor:
    """Minus the place of each item: the k of highest cosine by score, then the rest by cosine."""
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
    keys = {i: (0, -float(scores[i])) for i in order[:k]}
    keys |= {i: (1, -float(cosines[i])) for i in order[k:]}
    places = sorted(set(keys.values()))
    return -torch.tensor([places.index(keys[i]) for i in range(len(cosines))]).float()


@pytest.fixture(params=["blip", "albef"])
def case(request, tiny_model, tiny_batch) -> Case:
    return Case(tiny_model, tiny_batch, request.param)


def test_dual_figures_are_those_of_the_cosines(case: Case) -> None:
    result = case.evaluate(rerank_k=[])
    expected = retrieval_metrics(case.cosines, OWNER, caption_ids=CAPTION_IDS)
    assert result["dual"] == pytest.approx(expected)
    assert set(result["dual"]) == set(dual_figure_names(duplicates=True))
    assert result["chance"] == chance_metrics(STRICT)
    assert (result["clips"], result["captions"]) == (CLIPS, CAPTIONS)
    assert result.keys() == {"clips", "captions", "dual", "chance"}


def test_reranked_figures_are_those_of_sorting_every_query_by_hand(case: Case) -> None:
    result = case.evaluate()
    for name in RERANKED:
        a2t, t2a = case.reranked(name)
        expected = directed_caption_metrics(a2t, t2a, OWNER, CAPTION_IDS)
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

    def shifted(text: TextTokens, *audio: Any) -> Tensor:
        return match(text, *audio) + 7 * text.input_ids[:, 1:2].float()

    monkeypatch.setattr(case.model, "match", shifted)
    found = case.evaluate()
    assert found["reranked"] == pytest.approx(expected["reranked"])
    assert found["reranked_albef"] != pytest.approx(expected["reranked_albef"])


@pytest.mark.parametrize("batches", [(1, 1), (CLIPS, CAPTIONS), (5, 2), (7, 3)])
@pytest.mark.parametrize("pairs", [1, 7, 1000])
def test_figures_do_not_depend_on_batch_sizes(case: Case, batches, pairs: int) -> None:
    assert case.evaluate(batches, batch_size=pairs) == case.evaluate()
    first, second = (Cosines(*case.encoded(*sizes)).matrix() for sizes in (batches, (4, 8)))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("elements", [1, 50])
def test_figures_do_not_depend_on_the_blocks(case: Case, elements: int, monkeypatch) -> None:
    expected = case.evaluate()
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", elements)
    assert case.evaluate() == expected


def test_several_numbers_of_candidates_are_each_re_ranked_alone(case: Case, monkeypatch) -> None:
    match, pairs = case.model.match, []

    def counted(text: TextTokens, *audio: Any) -> Tensor:
        pairs.append(len(text.mask))
        return match(text, *audio)

    monkeypatch.setattr(case.model, "match", counted)
    result = case.evaluate(rerank_k=[2, 100, K])
    together = sum(pairs)
    assert list(result["rerank"]) == ["2", "4", "100"] and result["rerank_k"] == 100
    for k in (2, 4, 100):
        alone = case.evaluate(rerank_k=[k])
        assert result["rerank"][str(k)] == alone["rerank"][str(k)]
        for name in RERANKED:
            a2t, t2a = case.reranked(name, k)
            expected = directed_caption_metrics(a2t, t2a, OWNER, CAPTION_IDS)
            assert result["rerank"][str(k)][name] == pytest.approx(expected)
            assert alone[name] == alone["rerank"][str(k)][name]
    assert result["reranked"] == result["rerank"]["100"]["reranked"]
    # All of them are scored once: every clip with every distinct caption.
    assert together == CLIPS * (CAPTIONS - 1)


def test_every_needed_pair_is_scored_once(case: Case, monkeypatch) -> None:
    match, sizes = case.model.match, []

    def counted(text: TextTokens, *audio: Any) -> Tensor:
        sizes.append(len(text.mask))
        return match(text, *audio)

    monkeypatch.setattr(case.model, "match", counted)
    case.evaluate(batch_size=5)
    order = case.cosines.sort(dim=1, descending=True, stable=True).indices[:, :K]
    needed = {(a, c if c != 10 else 3) for a in range(CLIPS) for c in order[a].tolist()}
    needed |= {
        (a, c if c != 10 else 3)
        for c in range(CAPTIONS)
        for a in case.cosines[:, c].topk(K).indices.tolist()
    }
    assert sum(sizes) == len(needed) and max(sizes) == 5


def test_scores_pass_by_as_they_are_ranked(case: Case) -> None:
    audio, text = case.encoded(4, 8)
    cosines = Cosines(audio, text)
    pairs = find_pairs(cosines, text, K)
    candidates = match_pairs(case.model, audio, text, pairs, batch_size=5)
    passed: dict[tuple[str, str], list[Tensor]] = {}
    relevance: dict[str, Tensor] = {}

    def keep(way: str, system: str, start: int, scores: Tensor, relevant: Tensor) -> None:
        assert start == 0
        passed[way, system] = scores
        relevance[way] = relevant

    retrieval_figures(
        cosines,
        {"": STRICT},
        candidates=candidates,
        rerank_k=[2, K],
        temperature=TAU,
        on_scores=keep,
    )
    names = ["dual", *(f"{name}_k{k}" for k in (2, K) for name in RERANKED)]
    assert list(passed) == [(way, name) for way in ("a2t", "t2a") for name in names]
    assert torch.equal(relevance["a2t"], STRICT.block("a2t", 0, CLIPS))
    assert torch.equal(relevance["t2a"], relevance["a2t"].T)
    for name in RERANKED:
        a2t, t2a = case.reranked(name)
        for scores, expected in (
            (passed["a2t", f"{name}_k{K}"], a2t),
            (passed["t2a", f"{name}_k{K}"], t2a.T),
        ):
            assert torch.equal(ranks(scores), ranks(expected))


def ranks(scores: Tensor) -> Tensor:
    """Number of better items of each item, row by row."""
    return (scores[:, None, :] > scores[:, :, None]).sum(dim=2)


def test_relevance_without_one_clip_a_caption(case: Case) -> None:
    # Three classes, as labels: a text belongs to several clips.
    relevant = torch.arange(CLIPS)[:, None] % 3 == torch.arange(CAPTIONS)[None, :] % 3
    result = case.evaluate(relevance=RelevanceMatrix(relevant), duplicates=None)
    expected = relevance_metrics(case.cosines, RelevanceMatrix(relevant))
    expected |= {f"{way}_precision1": expected[f"{way}_r1"] for way in ("a2t", "t2a")}
    assert result["dual"] == pytest.approx(expected)
    assert set(result["dual"]) == set(dual_figure_names(duplicates=False))
    for name in RERANKED:
        expected = directed_metrics(*case.reranked(name), RelevanceMatrix(relevant))
        assert result[name] == pytest.approx(expected)
    assert result["chance"] == chance_metrics(RelevanceMatrix(relevant))


def test_autocast_does_not_round_the_cosines(case: Case) -> None:
    encoded = case.encoded(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = evaluate_retrieval(case.model, *encoded, STRICT, duplicates=STRICT)
    expected = retrieval_metrics(case.cosines, OWNER)
    assert {name: result["dual"][name] for name in expected} == pytest.approx(expected)


def test_reranking_needs_tokens(case: Case) -> None:
    encoded = case.encoded(4, 8, tokens=False)
    assert "dual" in evaluate_retrieval(case.model, *encoded, STRICT)
    with pytest.raises(ValueError, match="token states .* were not kept"):
        evaluate_retrieval(case.model, *encoded, STRICT, rerank_k=[4])


def test_what_does_not_fit_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"relevance has shape \[21, 9\], .*9 clips and 21 cap"):
        case.evaluate(relevance=RelevanceMatrix(STRICT.block("t2a", 0, CAPTIONS)))
    with pytest.raises(ValueError, match="k >= 1"):
        case.evaluate(rerank_k=[-1])
    with pytest.raises(ValueError, match="Nothing was encoded"):
        evaluate_retrieval(case.model, Encoded(), Encoded(), STRICT)


@pytest.mark.parametrize("part", ["audio", "text"])
def test_an_embedding_that_is_not_finite_is_refused(case: Case, part: str) -> None:
    with torch.no_grad():
        getattr(case.model, part).projection.bias[0] = float("nan")
    with pytest.raises(ValueError, match="embeddings of (9 of 9 clips|20 of 20 captions) are not"):
        case.evaluate()


def test_a_logit_that_is_not_finite_is_refused(case: Case) -> None:
    with torch.no_grad():
        case.model.head.classifier.bias[0] = float("inf")
    with pytest.raises(ValueError, match="matching logits of .* are not finite"):
        case.evaluate()


def test_a_clip_of_a_pass_is_projected_once(case: Case) -> None:
    audio, text = case.encoded(4, 8)
    shapes: list[list[int]] = []
    case.model.head.crosses[0].key.register_forward_pre_hook(
        lambda _, inputs: shapes.append(list(inputs[0].shape))
    )
    captions = text.text_tokens(torch.arange(6))
    one = audio.audio_tokens(torch.tensor([2]))
    copies = AudioTokens(*(x.repeat_interleave(6, dim=0) for x in one))
    with torch.no_grad():
        found = case.model.match(captions, one, torch.zeros(6, dtype=torch.int64))
        expected = case.model.match(captions, copies)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert [rows for rows, *_ in shapes] == [1, 6]
