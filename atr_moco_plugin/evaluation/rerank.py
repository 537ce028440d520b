"""Re-ranking of the best candidates with the matching head, as in ALBEF and BLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

# A float32 holds integers exactly up to here, and the levels below are integers.
_MAX_ITEMS = 2**24
_BLOCK_ELEMENTS = 2**23


@torch.no_grad()
def rerank(
    similarity: Tensor,
    score_pairs: Callable[[Tensor, Tensor], Tensor],
    k: int,
    *,
    mode: Literal["logit+cosine", "logit"] = "logit+cosine",
    batch_size: int = 256,
) -> tuple[Tensor, Tensor]:
    """Re-order the top k texts of every clip and the top k clips of every text.

    What comes back is not logits but rank levels, integers where larger is better, because adding
    an offset to logits of unknown size either lets the tail overtake or rounds its order away. In
    each row of the first matrix (column of the second) the k re-ranked candidates have levels >= 0
    in the order of their new score, and the others levels < 0 in the order of their cosine. Equal
    scores have equal levels: metrics see ties as ties. Where the cosine at place k is tied, the
    candidate with the lower index is re-ranked.

    A pair that both directions need is scored once. Feed the results to
    :func:`~atr_moco_plugin.evaluation.metrics.metrics_from`, or to ``retrieval_metrics`` as
    ``similarity`` and ``t2a_scores``.

    Args:
        similarity: ``[A, C]`` cosines, audio by text.
        score_pairs: takes audio indices ``[P]`` and text indices ``[P]`` (int64, on the device of
            ``similarity``, P <= ``batch_size``, sorted by audio) and returns the match logits
            ``[P]``. Which logit is the caller's choice; ALBEF and BLIP take that of the
            "match" class, ``head(...)[:, 1]``, without a softmax.
        k: candidates of each query; more than there are means all.
        mode: ``"logit+cosine"`` (BLIP) or ``"logit"`` (ALBEF).
        batch_size: pairs of one call of ``score_pairs``.

    Returns:
        ``(a2t_scores, t2a_scores)``, each ``[A, C]`` float32 rank levels.

    Raises:
        ValueError: when ``k`` or ``batch_size`` is not positive, the mode is unknown,
            ``similarity`` is not a finite matrix, or ``score_pairs`` returns another shape or
            logits that are not finite.
    """
    if k < 1 or batch_size < 1:
        raise ValueError(f"rerank needs k >= 1 and batch_size >= 1, got {k} and {batch_size}.")
    if mode not in ("logit+cosine", "logit"):
        raise ValueError(f"Unknown mode {mode!r}; expected 'logit+cosine' or 'logit'.")
    if similarity.dim() != 2 or similarity.numel() == 0 or max(similarity.shape) >= _MAX_ITEMS:
        raise ValueError(
            f"similarity must be a matrix [A, C] with sides of 1 to {_MAX_ITEMS - 1}, "
            f"got {list(similarity.shape)}."
        )
    if not all(bool(block.isfinite().all()) for block in torch.split(similarity, 1024)):
        raise ValueError("similarity has values that are not finite; check the embeddings.")

    clips, captions = similarity.shape
    texts = _top(similarity, min(k, captions))
    audios = _top(similarity.T, min(k, clips))
    # A pair's number is audio * C + text.
    a2t_pairs = torch.arange(clips, device=similarity.device)[:, None] * captions + texts
    t2a_pairs = audios * captions + torch.arange(captions, device=similarity.device)[:, None]
    pairs = torch.unique(torch.cat([a2t_pairs.flatten(), t2a_pairs.flatten()]))
    audio_index, text_index = pairs // captions, pairs % captions

    scores = _match_logits(score_pairs, audio_index, text_index, batch_size)
    if mode == "logit+cosine":
        scores = scores + similarity[audio_index, text_index].double()
    a2t = _levels(similarity, texts, scores[torch.searchsorted(pairs, a2t_pairs)])
    t2a = _levels(similarity.T, audios, scores[torch.searchsorted(pairs, t2a_pairs)])
    return a2t, t2a.T


def _match_logits(
    score_pairs: Callable[[Tensor, Tensor], Tensor],
    audio_index: Tensor,
    text_index: Tensor,
    batch_size: int,
) -> Tensor:
    """Logits of all pairs, ``[P]`` float64."""
    parts = []
    batches = zip(
        torch.split(audio_index, batch_size), torch.split(text_index, batch_size), strict=True
    )
    for audio, text in batches:
        logits = score_pairs(audio, text)
        if logits.shape != audio.shape:
            raise ValueError(
                f"score_pairs must return one logit a pair, {list(audio.shape)}, "
                f"got {list(logits.shape)}; pick the match logit, such as logits[:, 1]."
            )
        if not bool(logits.isfinite().all()):
            raise ValueError("score_pairs returned logits that are not finite.")
        parts.append(logits.to(audio.device).double())
    return torch.cat(parts)


def _row_blocks(similarity: Tensor) -> Iterator[Tensor]:
    yield from torch.split(similarity, max(_BLOCK_ELEMENTS // similarity.size(1), 1))


def _top(similarity: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row; unlike ``topk``, the lower index wins a tie."""
    blocks = _row_blocks(similarity)
    # Cloned, since a slice would keep the indices of the whole block alive.
    return torch.cat(
        [b.sort(dim=1, descending=True, stable=True).indices[:, :k].clone() for b in blocks]
    )


def _levels(similarity: Tensor, candidates: Tensor, scores: Tensor) -> Tensor:
    """Rank levels of each row: the candidates by their score, the others below by similarity."""
    blocks = _row_blocks(similarity)
    tail = torch.cat([-1 - _dense_rank(block, descending=True) for block in blocks])
    return tail.scatter(1, candidates, _dense_rank(scores, descending=False))


def _dense_rank(values: Tensor, *, descending: bool) -> Tensor:
    """Place of each value among the distinct values of its row, from 0; float32."""
    ordered, order = values.sort(dim=1, descending=descending)
    rank = torch.zeros_like(order)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    return torch.empty_like(rank, dtype=torch.float32).scatter_(1, order, rank.float())
