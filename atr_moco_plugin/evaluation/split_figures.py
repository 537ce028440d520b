"""The figures of a split: what a validation, the end of a run and the evaluation recipe report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from atr_moco_plugin.data.retrieval_set import RetrievalSet
from atr_moco_plugin.evaluation import evaluation_set_name
from atr_moco_plugin.evaluation.hubness import Occurrences
from atr_moco_plugin.evaluation.intervals import split_intervals
from atr_moco_plugin.evaluation.queries import SplitQueries, Systems, split_queries
from atr_moco_plugin.evaluation.relevance import relevances
from atr_moco_plugin.evaluation.retrieval import (
    OnScores,
    dual_figure_names,
    rank_queries,
    system_figures,
)
from atr_moco_plugin.evaluation.split import Scores, Split
from atr_moco_plugin.rank import RankLogger


class FinalFigures(NamedTuple):
    """What the last evaluation of a split leaves.

    Attributes:
        figures: for ``retrieval.json``.
        queries: what each query got, for ``queries.safetensors``.
    """

    figures: dict[str, Any]
    queries: SplitQueries


def split_figures(
    scores: Scores, split: Split, rerank_k: Sequence[int], temperature: float
) -> dict[str, Any]:
    """The figures of a split, as a validation needs them.

    Args:
        scores: of the model.
        split: the split.
        rerank_k: numbers of candidates of each query that are re-ranked.
        temperature: the trained temperature tau.

    Returns:
        ``test_set``, the name of what was evaluated; the keys of
        :func:`~atr_moco_plugin.evaluation.retrieval.system_figures`; ``rank``, the rank of the
        embeddings, with an alignment where caption i is of clip i; ``unreadable`` where clips were
        left out.
    """
    return _ranked(scores, split, rerank_k, temperature)[0]


def final_figures(
    scores: Scores,
    split: Split,
    rerank_k: Sequence[int],
    temperature: float,
    on_scores: OnScores | None = None,
) -> FinalFigures:
    """The figures of a split with their intervals, and what each query got.

    Args:
        scores: of the model.
        split: the split.
        rerank_k: numbers of candidates of each query that are re-ranked.
        temperature: the trained temperature tau.
        on_scores: see :func:`~atr_moco_plugin.evaluation.retrieval.rank_queries`.
    """
    hubs = Occurrences()
    figures, systems = _ranked(scores, split, rerank_k, temperature, hubs.watch(on_scores))
    keys = [clip.key for clip in split.retrieval_set.clips]
    figures["hubness"] = hubs.named(keys, split.retrieval_set.captions)
    queries = split_queries(figures["test_set"], split.retrieval_set, systems)
    figures["intervals"] = split_intervals(queries, rerank_k)
    return FinalFigures(figures, queries)


def _ranked(
    scores: Scores,
    split: Split,
    rerank_k: Sequence[int],
    temperature: float,
    on_scores: OnScores | None = None,
) -> tuple[dict[str, Any], Systems]:
    relevance = relevances(split.retrieval_set, scores.text.distinct.device)
    systems = rank_queries(
        scores.cosines,
        relevance,
        candidates=scores.candidates,
        rerank_k=rerank_k,
        temperature=temperature,
        on_scores=on_scores,
    )
    figures = system_figures(systems, relevance, rerank_k)
    result: dict[str, Any] = {
        "test_set": evaluation_set_name(split.dataset.name, split.name, figures["clips"]),
        **figures,
        "rank": _rank(scores, split.retrieval_set),
    }
    if split.unreadable:
        result["unreadable"] = split.unreadable
    return result, systems


def _rank(scores: Scores, retrieval_set: RetrievalSet) -> dict[str, Any]:
    record = RankLogger(scores.plain).log(step=0)
    assert record is not None, "a split has two clips or more"
    owner = retrieval_set.caption_to_audio
    if owner is None or not torch.equal(owner, torch.arange(len(retrieval_set.clips))):
        for pair in record["pairs"].values():
            pair["alignment"] = None
    return record


def figure_names(*, one_clip_each: bool, reranks: bool) -> list[str]:
    """Names of the figures that a validation records, each of which may choose the checkpoint.

    Args:
        one_clip_each: whether every caption belongs to one clip, not to all clips of a label.
        reranks: whether a validation re-ranks.
    """
    figures = dual_figure_names(duplicates=one_clip_each)
    again = [f"reranked_{name}" for name in figures] if reranks else []
    return [*figures, *again, "audio_rankme", "text_rankme"]
