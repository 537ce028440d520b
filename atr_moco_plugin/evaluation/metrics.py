"""Retrieval metrics in both directions: R@k, median rank and mAP@10; ties count against the model.

torchmetrics' retrieval metrics are not used: they ignore relevant items with a score <= 0, which
cosines have, and their recall is not the field's hit rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.queries import QueryFigures
from atr_moco_plugin.evaluation.relevance import (
    DIRECTIONS,
    DUPLICATES,
    CaptionRelevance,
    Direction,
    Relevance,
)

CUTOFFS = (1, 5, 10)
_AP_CUTOFF = 10

FIGURES = tuple(
    f"{direction}_{name}"
    for direction in DIRECTIONS
    for name in (*(f"r{k}" for k in CUTOFFS), "medr", "map10", "skipped")
) + ("r_sum",)
"""Names of the figures of :class:`RetrievalMetrics`."""


def higher_is_better(figure: str) -> bool:
    """Whether a model is better for a higher figure of this name: not for a median rank."""
    return "medr" not in figure


MEANS = (*(f"r{k}" for k in CUTOFFS), "map10")
"""Names of the figures that are means over queries, the columns of :func:`query_values`."""

BLOCK_ELEMENTS = 2**23
"""Scores in one block of queries: 64 MiB in float64."""


@torch.no_grad()
def retrieval_metrics(
    similarity: Tensor, caption_to_audio: Tensor, *, caption_ids: Tensor | None = None
) -> dict[str, float]:
    """Audio->text and text->audio retrieval figures of clips with any number of captions each.

    Audio->text counts the best rank of any own caption, text->audio the rank of the caption's
    clip. :class:`RetrievalMetrics` says what the figures mean and how ties count.

    Args:
        similarity: ``[A, C]``, any real dtype: audio ``a`` against caption ``c``, larger is closer.
        caption_to_audio: ``[C]`` integers in ``[0, A)``: the clip each caption describes.
        caption_ids: ``[C]`` integers, equal where two captions have the same text. They add
            duplicate-aware figures, the same keys with the suffix ``_dup``: a clip and a caption
            are then relevant to each other when the clip has a caption with that id.

    Returns:
        ``a2t_r1, a2t_r5, a2t_r10, a2t_medr, a2t_map10``, the same with ``t2a``, ``r_sum`` (R@k
        and mAP@10 in percent), ``clips`` (A), ``captions`` (C), ``a2t_skipped``, ``t2a_skipped``
        (clips without captions are skipped as queries), and all figures again with ``_dup``.

    Raises:
        ValueError: when shapes do not fit, an index is out of range, a score is NaN, or there is
            nothing to retrieve.

    Example:
        >>> similarity = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.1, 0.8]])
        >>> result = retrieval_metrics(similarity, torch.tensor([0, 0, 1]))
        >>> result["a2t_r1"], round(result["t2a_r1"], 1), result["t2a_medr"]
        (100.0, 100.0, 1.0)
    """
    _check_matrix(similarity)
    clips, captions = similarity.shape
    if len(caption_to_audio) != captions:
        raise ValueError(
            f"similarity has {captions} captions, caption_to_audio {len(caption_to_audio)}."
        )
    owner = caption_to_audio.to(similarity.device)
    metrics = relevance_metrics(similarity, CaptionRelevance(owner, clips))
    metrics |= {"clips": float(clips), "captions": float(captions)}
    if caption_ids is not None:
        relevance = CaptionRelevance(owner, clips, caption_ids=caption_ids.to(owner.device))
        duplicate_aware = relevance_metrics(similarity, relevance)
        metrics |= {f"{name}{DUPLICATES}": value for name, value in duplicate_aware.items()}
    return metrics


@torch.no_grad()
def relevance_metrics(similarity: Tensor, relevance: Relevance) -> dict[str, float]:
    """Retrieval figures for any relevance of clips and texts, such as the class in ESC-50.

    Memory beyond the arguments is bounded: queries are taken in blocks.

    Args:
        similarity: ``[A, C]``, any real dtype, larger is closer.
        relevance: of A clips and C texts.

    Returns:
        The :data:`FIGURES`.

    Raises:
        ValueError: when the shapes differ, a score is NaN, or no pair is relevant.
    """
    _check_matrix(similarity)
    if similarity.shape != relevance.shape:
        raise ValueError(
            f"Scores {list(similarity.shape)} and relevance {list(relevance.shape)} must have the "
            "same shape [A, C], audio by text."
        )
    return query_metrics(matrix_queries(similarity, relevance))


def matrix_queries(similarity: Tensor, relevance: Relevance) -> dict[Direction, QueryFigures]:
    """What each query of both directions gets from a matrix of scores, in blocks of queries.

    Args:
        similarity: ``[A, C]``, any real dtype, larger is closer, without NaN.
        relevance: of A clips and C texts.
    """
    metrics = RetrievalMetrics()
    for direction in DIRECTIONS:
        scores = similarity if direction == "a2t" else similarity.T
        for start, block in query_blocks(scores, scores.size(1)):
            relevant = relevance.block(direction, start, start + len(block))
            metrics.update(direction, block, relevant.to(block.device))
    return metrics.queries()


def query_blocks(queries: Tensor, items: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of ``queries`` in blocks with at most :data:`BLOCK_ELEMENTS` scores of ``items`` items,
    each with the number of its first row."""
    rows = max(BLOCK_ELEMENTS // items, 1)
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows]


class RetrievalMetrics:
    """Figures of both directions, collected from blocks of queries.

    Ties are resolved pessimistically: of items with equal scores, the irrelevant ones come first.
    The rank of a query is the rank of its best relevant item, ``1 + |{irrelevant items with a
    score >= its score}|``, so a constant score gives the worst figures, not the best.

    * ``r1, r5, r10``: share of queries with rank <= k, in percent (a hit rate).
    * ``medr``: median rank over queries, the mean of the middle two for an even number.
    * ``map10``: mean over queries of ``AP@10 = sum_{p<=10} P(p) rel(p) / min(10, R)`` in percent,
      with ``P(p)`` the precision among the first p items and R the number of relevant ones.
    * ``skipped``: queries without a relevant item, which are left out of all others.
    * ``r_sum``: sum of the six R@k.
    """

    def __init__(self) -> None:
        self._blocks: dict[Direction, list[QueryFigures]] = {name: [] for name in DIRECTIONS}

    def update(self, direction: Direction, scores: Tensor, relevant: Tensor) -> None:
        """Take the next n queries of a direction.

        Args:
            direction: ``a2t`` or ``t2a``.
            scores: ``[n, items]``, any real dtype, without NaN.
            relevant: ``[n, items]`` bool, on the device of ``scores``.
        """
        self._blocks[direction].append(rank_block(scores.double(), relevant))

    def queries(self) -> dict[Direction, QueryFigures]:
        """What each query got, by direction, in main memory."""
        return {
            direction: QueryFigures(
                *(torch.cat(parts).cpu() for parts in zip(*blocks, strict=True))
            )
            for direction, blocks in self._blocks.items()
        }

    def compute(self) -> dict[str, float]:
        """The :data:`FIGURES`.

        Raises:
            ValueError: when no query of a direction has a relevant item.
        """
        return query_metrics(self.queries())


def query_metrics(queries: Mapping[Direction, QueryFigures]) -> dict[str, float]:
    """The :data:`FIGURES` of what each query got, see :class:`RetrievalMetrics`.

    Args:
        queries: of both directions.

    Raises:
        ValueError: when no query of a direction has a relevant item.
    """
    metrics: dict[str, float] = {}
    for direction in DIRECTIONS:
        answerable = queries[direction].rank > 0
        rank = queries[direction].rank[answerable]
        if len(rank) == 0:
            raise ValueError("No pair is relevant, so there is nothing to retrieve.")
        for k in CUTOFFS:
            metrics[f"{direction}_r{k}"] = 100 * float((rank <= k).double().mean())
        precision = queries[direction].precision[answerable]
        metrics[f"{direction}_medr"] = float(rank.double().quantile(0.5))
        metrics[f"{direction}_map10"] = 100 * float(precision.mean())
        metrics[f"{direction}_skipped"] = float((~answerable).sum())
    return metrics | {"r_sum": r_sum(metrics)}


def query_values(queries: QueryFigures) -> Tensor:
    """``[Q, 4]`` float64 in [0, 1]: whether each query is a hit at each cutoff, and its AP@10.

    The means over the queries with a relevant item are the figures :data:`MEANS`.
    """
    found = queries.rank > 0
    hits = [(found & (queries.rank <= k)).double() for k in CUTOFFS]
    return torch.stack([*hits, queries.precision], dim=1)


def r_sum(metrics: dict[str, float]) -> float:
    """Sum of the six R@k."""
    return sum(metrics[f"{direction}_r{k}"] for direction in DIRECTIONS for k in CUTOFFS)


def rank_block(scores: Tensor, relevant: Tensor) -> QueryFigures:
    """What each query of a block got.

    Args:
        scores: ``[n, items]`` float64, without NaN.
        relevant: ``[n, items]`` bool.
    """
    cutoff = min(_AP_CUTOFF, scores.size(1))
    inf = float("inf")
    good = scores.masked_fill(~relevant, -inf).topk(cutoff).values
    bad = scores.masked_fill(relevant, -inf).topk(cutoff).values
    total = relevant.sum(dim=1, keepdim=True)
    rank = 1 + ((scores >= good[:, :1]) & ~relevant).sum(dim=1)

    # Position of the j-th relevant item: j plus the irrelevant ones at or above its score. Ten of
    # those push it out of the cutoff whatever their exact number, so the top ten are enough.
    place = torch.arange(1, cutoff + 1, device=scores.device)
    real = place <= scores.size(1) - total  # the others are fillers, where items run out
    ahead = ((bad[:, None, :] >= good[:, :, None]) & real[:, None, :]).sum(dim=2)
    position = place + ahead
    hit = (position <= cutoff) & (place <= total)
    precision = torch.where(hit, place.double() / position, 0.0).sum(dim=1)
    precision /= total.squeeze(1).clamp(1, _AP_CUTOFF)

    # Of the items with the highest score an irrelevant one comes first, then the lowest number.
    top = scores == scores.amax(dim=1, keepdim=True)
    first = (2 * top.byte() - (top & relevant).byte()).argmax(dim=1)
    return QueryFigures(rank.masked_fill(total.squeeze(1) == 0, 0), precision, first)


def _check_matrix(scores: Tensor) -> None:
    if scores.dim() != 2 or scores.numel() == 0:
        raise ValueError(
            f"Scores must be a matrix [A, C], audio by text, got {list(scores.shape)}."
        )
    broken = int(torch.count_nonzero(scores.isnan()))
    if broken:
        raise ValueError(
            f"{broken} of {scores.numel()} scores are NaN; look for a clip or a caption whose "
            "embedding is not finite."
        )
