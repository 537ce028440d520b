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
    texts = torch.cat([top_candidates(block, k) for block in _row_blocks(similarity)])
    audios = torch.cat([top_candidates(block, k) for block in _row_blocks(similarity.T)])
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


def _levels(similarity: Tensor, candidates: Tensor, scores: Tensor) -> Tensor:
    tail = torch.cat([tail_levels(block) for block in _row_blocks(similarity)])
    return candidate_levels(tail, candidates, scores)


def top_candidates(cosines: Tensor, k: int) -> Tensor:
    """The k items of highest cosine of each query; unlike ``topk``, the lower index wins a tie.

    Args:
        cosines: ``[n, items]``.
        k: how many; more than there are means all.

    Returns:
        ``[n, min(k, items)]`` int64, the best first: its first columns are those of a smaller k.
    """
    order = cosines.sort(dim=1, descending=True, stable=True).indices
    # Cloned, since a slice would keep the whole order alive.
    return order[:, :k].clone()


def tail_levels(cosines: Tensor) -> Tensor:
    """Rank levels of items that are not re-ranked, see :func:`rerank`.

    Args:
        cosines: ``[n, items]``.

    Returns:
        ``[n, items]`` float32, -1 for the best and one less for each lower cosine.
    """
    return -1 - _dense_rank(cosines, descending=True)


def candidate_levels(tail: Tensor, candidates: Tensor, scores: Tensor) -> Tensor:
    """Rank levels of all items once the candidates have a new score, see :func:`rerank`.

    Args:
        tail: ``[n, items]``, from :func:`tail_levels`.
        candidates: ``[n, k]`` int64, item indices.
        scores: ``[n, k]`` new scores of the candidates.

    Returns:
        ``[n, items]`` float32; the candidates have levels from 0, the others those of ``tail``.
    """
    return tail.scatter(1, candidates, _dense_rank(scores, descending=False))


def _dense_rank(values: Tensor, *, descending: bool) -> Tensor:
    """Place of each value among the distinct values of its row, from 0; float32."""
    ordered, order = values.sort(dim=1, descending=descending)
    rank = torch.zeros_like(order)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    return torch.empty_like(rank, dtype=torch.float32).scatter_(1, order, rank.float())
