"""Retrieval metrics in both directions: R@k, median rank and mAP@10, ties counted against us.

torchmetrics' retrieval metrics are not used: they ignore relevant items with a score <= 0, which
cosines have, and their recall is not the field's hit rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.relevance import CaptionRelevance

CUTOFFS = (1, 5, 10)
_AP_CUTOFF = 10
# Scores in one block of queries, 64 MiB in float64.
_BLOCK_ELEMENTS = 2**23


@torch.no_grad()
def retrieval_metrics(
    similarity: Tensor,
    caption_to_audio: Tensor,
    *,
    caption_ids: Tensor | None = None,
    t2a_scores: Tensor | None = None,
) -> dict[str, float]:
    """Audio->text and text->audio retrieval figures of clips with any number of captions each.

    Audio->text counts the best rank of any own caption, text->audio the rank of the caption's
    clip. What the figures mean, and how ties count, is at :func:`metrics_from`.

    Args:
        similarity: ``[A, C]``, any real dtype: audio ``a`` against caption ``c``, larger is closer.
        caption_to_audio: ``[C]`` integers in ``[0, A)``: the clip each caption describes.
        caption_ids: ``[C]`` integers, equal where two captions have the same text. With it come
            duplicate-aware figures, the same keys with the suffix ``_dup``: a clip and a caption
            then belong together when the clip has a caption with that id.
        t2a_scores: ``[A, C]``, scores of the text->audio direction where they are not
            ``similarity``, as after :func:`~atr_moco_plugin.evaluation.rerank.rerank`.

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
    second = similarity if t2a_scores is None else t2a_scores
    clips, captions = similarity.shape
    if len(caption_to_audio) != captions:
        raise ValueError(
            f"similarity has {captions} captions, caption_to_audio {len(caption_to_audio)}."
        )
    target = caption_to_audio.to(similarity.device)
    metrics = metrics_from(similarity, second, caption_relevance(target, clips))
    metrics |= {"clips": float(clips), "captions": float(captions)}
    if caption_ids is not None:
        relevant = caption_relevance(target, clips, caption_ids=caption_ids.to(target.device))
        duplicate_aware = metrics_from(similarity, second, relevant)
        metrics |= {f"{name}_dup": value for name, value in duplicate_aware.items()}
    return metrics


@torch.no_grad()
def relevance_metrics(similarity: Tensor, relevant: Tensor) -> dict[str, float]:
    """Retrieval figures for any relevance of clips and texts, such as the class in ESC-50.

    Args:
        similarity: ``[A, C]``, any real dtype, larger is closer.
        relevant: ``[A, C]`` bool, ``True`` where a clip and a text belong together.

    Returns:
        What :func:`metrics_from` returns, and ``a2t_precision1``, ``t2a_precision1`` in percent:
        how often the first item is relevant, which is R@1 under the name it has in classification.

    Raises:
        ValueError: see :func:`metrics_from`.
    """
    metrics = metrics_from(similarity, similarity, relevant)
    metrics |= {f"{way}_precision1": metrics[f"{way}_r1"] for way in ("a2t", "t2a")}
    return metrics


@torch.no_grad()
def metrics_from(a2t_scores: Tensor, t2a_scores: Tensor, relevant: Tensor) -> dict[str, float]:
    """Retrieval figures where the two directions have score matrices of their own (re-ranking).

    Ties are resolved pessimistically: of items with equal scores, those that are not relevant
    come first. The rank of a query is that of its best relevant item, ``1 + |{not relevant items
    with a score >= its score}|``, so a constant score gives the worst figures, not the best.

    * ``r1, r5, r10``: share of queries with rank <= k, in percent (a hit rate).
    * ``medr``: median rank over queries, the mean of the middle two for an even number.
    * ``map10``: mean over queries of ``AP@10 = sum_{p<=10} P(p) rel(p) / min(10, R)`` in percent,
      with ``P(p)`` the precision among the first p items and R the number of relevant ones.
    * ``r_sum``: sum of the six R@k.

    Queries without a relevant item are left out of all and counted in ``a2t_skipped`` and
    ``t2a_skipped``. Memory beyond the arguments is bounded: queries are taken in blocks.

    Args:
        a2t_scores: ``[A, C]``, any real dtype; each row ranks the texts for one clip.
        t2a_scores: ``[A, C]``, any real dtype; each column ranks the clips for one text.
        relevant: ``[A, C]`` bool.

    Raises:
        ValueError: when the shapes differ, a score is NaN, or no pair is relevant.
    """
    for scores in (a2t_scores, t2a_scores):
        _check_matrix(scores)
        if scores.shape != relevant.shape:
            raise ValueError(
                f"Scores {list(scores.shape)} and relevant {list(relevant.shape)} must have the "
                "same shape [A, C], audio by text."
            )
    if relevant.dtype != torch.bool:
        raise ValueError(f"relevant must be a bool matrix [A, C], got {relevant.dtype}.")
    if not bool(relevant.any()):
        raise ValueError("No pair is relevant, so there is nothing to retrieve.")
    return both_directions(_direction(a2t_scores, relevant), _direction(t2a_scores.T, relevant.T))


def both_directions(a2t: DirectionMetrics, t2a: DirectionMetrics) -> dict[str, float]:
    """The figures of :func:`metrics_from` from those of its two directions.

    Raises:
        ValueError: when no query of a direction has a relevant item.
    """
    metrics = {f"a2t_{name}": value for name, value in a2t.compute().items()}
    metrics |= {f"t2a_{name}": value for name, value in t2a.compute().items()}
    metrics["r_sum"] = sum(metrics[f"{way}_r{k}"] for way in ("a2t", "t2a") for k in CUTOFFS)
    return metrics


def caption_relevance(
    caption_to_audio: Tensor, clips: int, *, caption_ids: Tensor | None = None
) -> Tensor:
    """Which clips and captions belong together.

    Args:
        caption_to_audio: ``[C]`` integers in ``[0, clips)``.
        clips: A, the number of clips.
        caption_ids: ``[C]`` integers; with it a clip also belongs to every caption that has the
            id of one of its own.

    Returns:
        ``[A, C]`` bool.

    Raises:
        ValueError: when an index is out of range or the lengths differ.
    """
    relevance = CaptionRelevance(caption_to_audio, clips, caption_ids=caption_ids)
    return relevance.captions_of(0, clips)


class DirectionMetrics:
    """Figures of one direction, collected from blocks of queries.

    See :func:`metrics_from` for what they are. A block may have any number of queries.
    """

    def __init__(self) -> None:
        self._ranks: list[Tensor] = []
        self._precisions: list[Tensor] = []
        self._queries = 0

    def update(self, scores: Tensor, relevant: Tensor) -> None:
        """Take the next n queries.

        Args:
            scores: ``[n, items]``, any real dtype, without NaN.
            relevant: ``[n, items]`` bool, on the device of ``scores``.
        """
        answerable = relevant.any(dim=1)
        ranked = _rank_block(scores[answerable].double(), relevant[answerable])
        self._ranks.append(ranked.rank)
        self._precisions.append(ranked.average_precision)
        self._queries += len(scores)

    def compute(self) -> dict[str, float]:
        """``r1, r5, r10, medr, map10, skipped``.

        Raises:
            ValueError: when no query has a relevant item.
        """
        rank = torch.cat(self._ranks)
        if len(rank) == 0:
            raise ValueError("No pair is relevant, so there is nothing to retrieve.")
        metrics = {f"r{k}": 100 * float((rank <= k).double().mean()) for k in CUTOFFS}
        metrics["medr"] = float(rank.double().quantile(0.5))
        metrics["map10"] = 100 * float(torch.cat(self._precisions).mean())
        metrics["skipped"] = float(self._queries - len(rank))
        return metrics


class _Ranked(NamedTuple):
    rank: Tensor
    average_precision: Tensor


def _direction(scores: Tensor, relevant: Tensor) -> DirectionMetrics:
    """Figures with the rows as queries."""
    metrics = DirectionMetrics()
    for block in _blocks(scores, relevant):
        metrics.update(*block)
    return metrics


def _blocks(scores: Tensor, relevant: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = max(_BLOCK_ELEMENTS // scores.size(1), 1)
    relevant = relevant.to(scores.device)
    return zip(torch.split(scores, rows), torch.split(relevant, rows), strict=True)


def _rank_block(scores: Tensor, relevant: Tensor) -> _Ranked:
    """Rank of the best relevant item and AP@10 of each row ``[n, items]``."""
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
    return _Ranked(rank, precision / total.squeeze(1).clamp_max(_AP_CUTOFF))


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
