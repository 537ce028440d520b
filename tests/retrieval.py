"""Evaluations that several tests make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from atr_moco_plugin.evaluation.candidates import find_pairs, match_pairs
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.metrics import CUTOFFS, relevance_metrics
from atr_moco_plugin.evaluation.relevance import DUPLICATES, CaptionRelevance, Relevance
from atr_moco_plugin.evaluation.retrieval import rank_queries, system_figures


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
    """Both directions, dual-encoder and re-ranked, with chance beside."""
    cosines, candidates = Cosines(audio, text), None
    if rerank_k:
        pairs = find_pairs(cosines, text, max(rerank_k))
        candidates = match_pairs(model, audio, text, pairs, batch_size=batch_size)
    return retrieval_figures(
        cosines,
        {"": relevance} | ({} if duplicates is None else {DUPLICATES: duplicates}),
        candidates=candidates,
        rerank_k=rerank_k,
        temperature=temperature,
    )


def retrieval_figures(
    cosines: Cosines,
    relevances: Mapping[str, Relevance],
    rerank_k: Sequence[int] = (),
    **options: Any,
) -> dict[str, Any]:
    """Figures of the cosines and of re-ranking; the options are those of ``rank_queries``."""
    systems = rank_queries(cosines, relevances, rerank_k=rerank_k, **options)
    return system_figures(systems, relevances, rerank_k)


def directed_metrics(a2t: Tensor, t2a: Tensor, relevance: Relevance) -> dict[str, float]:
    """Figures where the two directions have score matrices ``[A, C]`` of their own."""
    metrics = {
        name: value
        for way, scores in (("a2t", a2t), ("t2a", t2a))
        for name, value in relevance_metrics(scores, relevance).items()
        if name.startswith(way)
    }
    total = sum(metrics[f"{way}_r{k}"] for way in ("a2t", "t2a") for k in CUTOFFS)
    return metrics | {"r_sum": total}


def directed_caption_metrics(
    a2t: Tensor, t2a: Tensor, owner: Tensor, caption_ids: Tensor | None = None
) -> dict[str, float]:
    """The same for clips with captions, with the duplicate-aware figures beside the strict ones."""
    clips, captions = a2t.shape
    metrics = directed_metrics(a2t, t2a, CaptionRelevance(owner, clips))
    metrics |= {"clips": float(clips), "captions": float(captions)}
    if caption_ids is not None:
        relevance = CaptionRelevance(owner, clips, caption_ids=caption_ids)
        aware = directed_metrics(a2t, t2a, relevance)
        metrics |= {f"{name}{DUPLICATES}": value for name, value in aware.items()}
    return metrics
