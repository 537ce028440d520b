"""Evaluate a model on clips and captions: embed once, score with cosines, re-rank with the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from atr_moco_plugin.evaluation.candidates import Candidates, Cosines, find_pairs, match_pairs
from atr_moco_plugin.evaluation.chance import chance_of
from atr_moco_plugin.evaluation.encode import Encoded
from atr_moco_plugin.evaluation.metrics import DirectionMetrics, both_directions
from atr_moco_plugin.evaluation.relevance import Relevance
from atr_moco_plugin.evaluation.rerank import candidate_levels, tail_levels

RERANKINGS = ("reranked", "reranked_blip", "reranked_albef")
"""The ways to score a candidate, see :func:`retrieval_figures`."""

OnScores = Callable[[str, str, int, Tensor, Tensor], object]
"""Called with the direction, the system's name, the number of the first query, and ``[n, items]``
scores and relevance of the queries from there on."""


class System(NamedTuple):
    """A way to rank: the cosines (``k`` 0), or re-ranking the top k by one of the scores."""

    k: int
    score: str

    @property
    def name(self) -> str:
        """Such as ``dual`` or ``reranked_blip_k64``."""
        return f"{self.score}_k{self.k}" if self.k else self.score


DUAL = System(0, "dual")


@torch.no_grad()
def evaluate_retrieval(
    model: Module,
    audio: Encoded,
    text: Encoded,
    relevance: Relevance,
    *,
    duplicates: Relevance | None = None,
    rerank_k: Sequence[int] = (),
    temperature: float = 0.07,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Both directions, dual-encoder and re-ranked, with chance beside.

    Args:
        model: a model in eval mode, whose ``match`` re-ranks.
        audio: A encoded clips.
        text: C encoded captions.
        relevance: what counts as a hit.
        duplicates: what counts as a hit in the duplicate-aware figures.
        rerank_k: numbers of candidates of each query that are re-ranked; empty for none.
        temperature: the trained temperature tau, which weighs cosine against match for re-ranking.
        batch_size: most pairs of a forward pass of the head, which are all of one clip.

    Returns:
        See :func:`retrieval_figures`.

    Raises:
        ValueError: when nothing was encoded, the relevance has another shape, there are no tokens
            to re-rank with, or an embedding or a logit is not finite.
    """
    candidates = None
    if rerank_k:
        pairs = find_pairs(Cosines(audio, text), text, max(rerank_k))
        candidates = match_pairs(model, audio, text, pairs, batch_size=batch_size)
    return retrieval_figures(
        Cosines(audio, text),
        relevance,
        duplicates=duplicates,
        candidates=candidates,
        rerank_k=rerank_k,
        temperature=temperature,
    )


@torch.no_grad()
def retrieval_figures(
    cosines: Cosines,
    relevance: Relevance,
    *,
    duplicates: Relevance | None = None,
    candidates: Candidates | None = None,
    rerank_k: Sequence[int] = (),
    temperature: float = 0.07,
    on_scores: OnScores | None = None,
) -> dict[str, Any]:
    """Figures of cosines and of re-ranking their best candidates.

    No matrix ``[A, C]`` is made: queries are taken in blocks, for which about 0.5 GB is in memory
    at a time. What grows with the sets are the candidates, 40 bytes each while they are found and
    16 afterwards: 60 MB for AudioCaps' test set (975 clips, 4,875 captions) at k = 256, 3 GB for
    50,000 clips and 250,000 captions, on the device of the embeddings.

    Args:
        cosines: of A clips and C captions.
        relevance: what counts as a hit.
        duplicates: what counts as a hit in the duplicate-aware figures.
        candidates: from :func:`~atr_moco_plugin.evaluation.candidates.match_pairs` with the
            largest k.
        rerank_k: numbers of candidates of each query that are re-ranked.
        temperature: the trained temperature tau.
        on_scores: told the scores of every system as they pass, as when rankings are written.

    Returns:
        ``dual`` (cosines) and ``chance``, each with the keys of
        :func:`~atr_moco_plugin.evaluation.metrics_from`; ``clips`` and ``captions``, their
        numbers. ``dual`` has ``a2t_precision1`` and ``t2a_precision1`` too, as
        :func:`~atr_moco_plugin.evaluation.relevance_metrics`, unless there are ``duplicates``: then
        all but ``chance`` have the keys of :func:`~atr_moco_plugin.evaluation.retrieval_metrics`.
        With ``rerank_k`` there is ``rerank``, from each k (as text) to three re-rankings, those of
        the largest k again beside ``dual``, and ``rerank_k``, the largest. They score a candidate
        with

        * ``reranked``: log-odds of a match + cosine / tau, the sum of the two log-probability
          ratios that the matching and the contrastive loss train (ours);
        * ``reranked_blip``: match logit + cosine (BLIP, Li et al. 2022);
        * ``reranked_albef``: the match logit alone (ALBEF, Li et al. 2021).

        The match logit of the last two is one of a pair of logits, which the loss leaves free to
        shift together from pair to pair; the log-odds are their difference, which it does not.

    Raises:
        ValueError: when the relevance has another shape, or no pair is relevant.
    """
    clips, captions = cosines.shape
    if relevance.shape != cosines.shape:
        raise ValueError(
            f"The relevance has shape {list(relevance.shape)}, but there are {clips} clips and "
            f"{captions} captions."
        )
    systems = [DUAL, *(System(k, score) for k in sorted(set(rerank_k)) for score in RERANKINGS)]
    relevances = {"": relevance} | ({} if duplicates is None else {"_dup": duplicates})
    found: dict[tuple[str, System, str], DirectionMetrics] = {
        (way, system, suffix): DirectionMetrics()
        for way in ("a2t", "t2a")
        for system in systems
        for suffix in relevances
    }
    for way, blocks in (("a2t", cosines.of_clips()), ("t2a", cosines.of_captions())):
        for start, block in blocks:
            stop = start + len(block)
            relevant = {
                suffix: _hits(r, way, start, stop).to(block.device)
                for suffix, r in relevances.items()
            }
            head = None if candidates is None else _rows(candidates, way, start, stop)
            for system, scores in _score(block, systems, head, temperature):
                for suffix, hits in relevant.items():
                    found[way, system, suffix].update(scores, hits)
                if on_scores is not None:
                    on_scores(way, system.name, start, scores, relevant[""])

    def figures(system: System) -> dict[str, float]:
        result: dict[str, float] = {}
        for suffix in relevances:
            both = both_directions(found["a2t", system, suffix], found["t2a", system, suffix])
            result |= {f"{name}{suffix}": value for name, value in both.items()}
        if duplicates is not None:
            result |= {"clips": float(clips), "captions": float(captions)}
        elif system == DUAL:
            result |= {f"{way}_precision1": result[f"{way}_r1"] for way in ("a2t", "t2a")}
        return result

    result: dict[str, Any] = {
        "clips": clips,
        "captions": captions,
        "dual": figures(DUAL),
        "chance": chance_of(relevance),
    }
    if rerank_k:
        result["rerank"] = {
            str(k): {score: figures(System(k, score)) for score in RERANKINGS}
            for k in sorted(set(rerank_k))
        }
        result |= {**result["rerank"][str(max(rerank_k))], "rerank_k": max(rerank_k)}
    return result


def _hits(relevance: Relevance, way: str, start: int, stop: int) -> Tensor:
    if way == "a2t":
        return relevance.captions_of(start, stop)
    return relevance.clips_of(start, stop)


class _Head(NamedTuple):
    """Candidates ``[n, K]`` of a block of queries and their logits ``[n, K, 2]``."""

    items: Tensor
    logits: Tensor


def _rows(candidates: Candidates, way: str, start: int, stop: int) -> _Head:
    if way == "a2t":
        return _Head(candidates.texts[start:stop], candidates.text_logits[start:stop])
    return _Head(candidates.clips[start:stop], candidates.clip_logits[start:stop])


def _score(
    cosines: Tensor, systems: Sequence[System], head: _Head | None, temperature: float
) -> Iterator[tuple[System, Tensor]]:
    """What each system says of a block of queries, ``[n, items]``, larger is better."""
    yield DUAL, cosines
    if head is None:
        return
    tail = tail_levels(cosines)
    cosine = cosines.gather(1, head.items).double()
    no, yes = head.logits.double().unbind(-1)
    scores = dict(zip(RERANKINGS, (yes - no + cosine / temperature, yes + cosine, yes)))
    for system in systems:
        if system.k:
            k = system.k
            yield system, candidate_levels(tail, head.items[:, :k], scores[system.score][:, :k])
