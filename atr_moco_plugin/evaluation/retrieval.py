"""Retrieval figures of a model: cosines, and re-ranking of the best candidates by the head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.chance import chance_metrics
from atr_moco_plugin.evaluation.cosines import Cosines
from atr_moco_plugin.evaluation.metrics import FIGURES, RetrievalMetrics, query_metrics
from atr_moco_plugin.evaluation.queries import QueryFigures, Systems
from atr_moco_plugin.evaluation.relevance import DIRECTIONS, DUPLICATES, Direction, Relevance
from atr_moco_plugin.evaluation.rerank import (
    DUAL,
    RERANKINGS,
    Candidates,
    System,
    system_scores,
)

OnScores = Callable[[Direction, str, int, Tensor, Tensor], object]
"""Called with the direction, the system's name, the number of the first query, and ``[n, items]``
scores and strict relevance of the n queries from there on."""


Score = Callable[[Direction, int, Tensor], Iterable[tuple[str, Tensor]]]
"""Called with the direction, the number of the first query and ``[n, items]`` cosines of the n
queries from there on. Gives systems by name, each with its ``[n, items]`` scores."""


@torch.no_grad()
def rank_queries(
    cosines: Cosines,
    relevances: Mapping[str, Relevance],
    *,
    candidates: Mapping[Direction, Candidates] | None = None,
    rerank_k: Sequence[int] = (),
    temperature: float = 0.07,
    on_scores: OnScores | None = None,
) -> Systems:
    """What each query gets from the cosines and from re-ranking their best candidates.

    No matrix ``[A, C]`` is made: queries are taken in blocks, for which about 0.5 GB is in memory
    at a time. Only the candidates grow with the sets, 40 bytes each while they are found and
    16 afterwards: 60 MB for AudioCaps' test set (975 clips, 4,875 captions) at k = 256, 3 GB for
    50,000 clips and 250,000 captions, on the device of the embeddings.

    Args:
        cosines: of A clips and C captions.
        relevances: relevance by the suffix of its figures, from
            :func:`~atr_moco_plugin.evaluation.relevance.relevances`; ``""`` is the strict one.
        candidates: from :func:`~atr_moco_plugin.evaluation.candidates.match_pairs` with the
            largest k.
        rerank_k: numbers of candidates of each query that are re-ranked.
        temperature: the trained temperature tau.
        on_scores: called with each block of scores of every system, to write rankings for example.

    Returns:
        By direction and system, in main memory.

    Raises:
        ValueError: when the relevance has another shape.
    """
    systems = [DUAL, *(System(k, score) for k in sorted(set(rerank_k)) for score in RERANKINGS)]

    def score(direction: Direction, start: int, block: Tensor) -> Iterator[tuple[str, Tensor]]:
        head = None
        if candidates is not None:
            head = Candidates(*(x[start : start + len(block)] for x in candidates[direction]))
        for system, scores in system_scores(systems, block, head, temperature):
            yield system.name, scores

    return rank_systems(cosines, relevances, score, on_scores)


@torch.no_grad()
def rank_systems(
    cosines: Cosines,
    relevances: Mapping[str, Relevance],
    score: Score,
    on_scores: OnScores | None = None,
) -> Systems:
    """What each query gets from each of some systems; see :func:`rank_queries`, which is one use.

    Args:
        cosines: of A clips and C captions.
        relevances: relevance by the suffix of its figures; ``""`` is the strict one.
        score: makes the systems' scores of a block of cosines.
        on_scores: called with each block of scores of every system.

    Raises:
        ValueError: when the relevance has another shape.
    """
    clips, captions = cosines.shape
    for relevance in relevances.values():
        if relevance.shape != cosines.shape:
            raise ValueError(
                f"The relevance has shape {list(relevance.shape)}, but there are {clips} clips and "
                f"{captions} captions."
            )
    found: dict[str, RetrievalMetrics] = {}
    for direction in DIRECTIONS:
        for start, block in cosines.blocks(direction):
            relevant = {
                suffix: relevance.block(direction, start, start + len(block)).to(block.device)
                for suffix, relevance in relevances.items()
            }
            for name, scores in score(direction, start, block):
                for suffix, hits in relevant.items():
                    metrics = found.setdefault(f"{name}{suffix}", RetrievalMetrics())
                    metrics.update(direction, scores, hits)
                if on_scores is not None:
                    on_scores(direction, name, start, scores, relevant[""])
    result: dict[Direction, dict[str, QueryFigures]] = {direction: {} for direction in DIRECTIONS}
    for name, metrics in found.items():
        for direction, of_queries in metrics.queries().items():
            result[direction][name] = of_queries
    return result


def figures_of(systems: Systems, name: str, suffixes: Iterable[str]) -> dict[str, float]:
    """The figures of one system under every relevance, each name with its suffix."""
    result: dict[str, float] = {}
    for suffix in suffixes:
        metrics = query_metrics({way: systems[way][f"{name}{suffix}"] for way in DIRECTIONS})
        result |= {f"{figure}{suffix}": value for figure, value in metrics.items()}
    return result


def system_figures(
    systems: Systems, relevances: Mapping[str, Relevance], rerank_k: Sequence[int] = ()
) -> dict[str, Any]:
    """Figures of what each query got.

    Args:
        systems: of :func:`rank_queries`, with the same relevance and numbers of candidates.
        relevances: by the suffix of the figures.
        rerank_k: numbers of candidates.

    Returns:
        ``clips`` and ``captions``, their numbers; ``dual``, the figures of the cosines under the
        names of :func:`dual_figure_names`; ``chance``, the expected strict figures. With
        ``rerank_k``
        also ``rerank``, from each k (as text) to three re-rankings, the three of the largest k
        beside ``dual``, and ``rerank_k``, the largest k. They score a candidate with

        * ``reranked``: log-odds of a match + cosine / tau, the sum of the two log-probability
          ratios that the matching and the contrastive loss train (ours);
        * ``reranked_blip``: match logit + cosine (BLIP, Li et al. 2022);
        * ``reranked_albef``: the match logit alone (ALBEF, Li et al. 2021).

        The last two use the match logit, one of a pair of logits. The loss leaves both free to
        shift together from pair to pair. The log-odds are their difference, which cannot shift.

    Raises:
        ValueError: when no pair is relevant.
    """
    clips, captions = relevances[""].shape

    def figures(system: System) -> dict[str, float]:
        result = figures_of(systems, system.name, relevances)
        if DUPLICATES in relevances:
            result |= {"clips": float(clips), "captions": float(captions)}
        elif system == DUAL:
            result |= {f"{way}_precision1": result[f"{way}_r1"] for way in DIRECTIONS}
        return result

    result: dict[str, Any] = {
        "clips": clips,
        "captions": captions,
        **by_system(figures, rerank_k),
        "chance": chance_metrics(relevances[""]),
    }
    return result | ({"rerank_k": max(rerank_k)} if rerank_k else {})


def by_system(of: Callable[[System], Any], rerank_k: Sequence[int]) -> dict[str, Any]:
    """What ``of`` says of each system, where a split of ``retrieval.json`` has it.

    Args:
        of: called with each system, :data:`~atr_moco_plugin.evaluation.rerank.DUAL` first.
        rerank_k: numbers of candidates.

    Returns:
        ``dual``, and with ``rerank_k`` also ``rerank`` and the three re-rankings of the largest k.
    """
    result = {"dual": of(DUAL)}
    if rerank_k:
        result["rerank"] = {
            str(k): {score: of(System(k, score)) for score in RERANKINGS}
            for k in sorted(set(rerank_k))
        }
        result |= result["rerank"][str(max(rerank_k))]
    return result


def dual_figure_names(*, duplicates: bool) -> tuple[str, ...]:
    """Names of the figures under ``dual`` in :func:`system_figures`.

    Args:
        duplicates: whether there are duplicate-aware figures, as where every caption has one clip.
            Without them ``a2t_precision1`` and ``t2a_precision1`` say how often the first item is
            relevant, which is R@1 under the name it has in classification.
    """
    if duplicates:
        return (*FIGURES, *(f"{name}{DUPLICATES}" for name in FIGURES), "clips", "captions")
    return (*FIGURES, *(f"{direction}_precision1" for direction in DIRECTIONS))
