"""Re-ranking of a query's best candidates with the matching head, as in ALBEF and BLIP.

The new order is expressed in rank levels, integers where larger is better. Adding an offset to
logits of unknown size would either let other items overtake or round their order away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RERANKINGS = ("reranked", "reranked_blip", "reranked_albef")
"""The ways to score a candidate, see
:func:`~atr_moco_plugin.evaluation.retrieval.system_figures`."""


class System(NamedTuple):
    """A way to rank: by cosine (``k`` 0), or by re-ranking the top k with one of the scores."""

    k: int
    score: str

    @property
    def name(self) -> str:
        """Such as ``dual`` or ``reranked_blip_k64``."""
        return f"{self.score}_k{self.k}" if self.k else self.score


DUAL = System(0, "dual")


class Candidates(NamedTuple):
    """The K best items of n queries by cosine, the best first, with the matching logits.

    Attributes:
        items: ``[n, K]`` int64, numbers of the items.
        logits: ``[n, K, 2]`` float32 matching logits of query and item.
    """

    items: Tensor
    logits: Tensor


def system_scores(
    systems: Sequence[System],
    cosines: Tensor,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
) -> Iterator[tuple[System, Tensor]]:
    """What each system says of a block of queries.

    Args:
        systems: :data:`DUAL`, or re-rankings of the first candidates.
        cosines: ``[n, items]``.
        candidates: of the n queries, for re-ranking.
        temperature: the trained temperature tau.

    Returns:
        Systems with ``[n, items]`` scores, larger is better: cosines or rank levels.
    """
    scores, others = {}, cosines
    if candidates is not None:
        cosine = cosines.gather(1, candidates.items).double()
        no, yes = candidates.logits.double().unbind(-1)
        reranked = (yes - no + cosine / temperature, yes + cosine, yes)
        scores = dict(zip(RERANKINGS, reranked, strict=True))
        others = _levels_by_cosine(cosines)
    for system in systems:
        if system == DUAL:
            yield DUAL, cosines
        else:
            assert candidates is not None, "re-ranking needs candidates"
            items, new = candidates.items[:, : system.k], scores[system.score][:, : system.k]
            yield system, _reranked_levels(others, items, new)


def top_candidates(cosines: Tensor, k: int) -> Tensor:
    """The k items of highest cosine of each query; unlike ``topk``, the lower index wins a tie.

    Args:
        cosines: ``[n, items]``.
        k: how many; more than there are means all.

    Returns:
        ``[n, min(k, items)]`` int64, the best first: the candidates for a smaller k are its first
        columns.
    """
    order = cosines.sort(dim=1, descending=True, stable=True).indices
    # Cloned, since a slice would keep the whole order alive.
    return order[:, :k].clone()


def _levels_by_cosine(cosines: Tensor) -> Tensor:
    """Rank levels of items that are not re-ranked: all below 0, equal where cosines are equal.

    Args:
        cosines: ``[n, items]``.

    Returns:
        ``[n, items]`` float32, -1 for the best and one less for each lower cosine.
    """
    return -1 - _dense_rank(cosines, descending=True)


def _reranked_levels(levels: Tensor, candidates: Tensor, scores: Tensor) -> Tensor:
    """Rank levels of all items, with the candidates in the order of their new score.

    Args:
        levels: ``[n, items]`` of :func:`_levels_by_cosine`.
        candidates: ``[n, k]`` int64, item indices.
        scores: ``[n, k]`` new scores of the candidates.

    Returns:
        ``[n, items]`` float32. Candidates have levels from 0 up, equal where scores are equal;
        the others keep theirs.
    """
    return levels.scatter(1, candidates, _dense_rank(scores, descending=False))


def _dense_rank(values: Tensor, *, descending: bool) -> Tensor:
    """Place of each value among the distinct values of its row, from 0; float32."""
    ordered, order = values.sort(dim=1, descending=descending)
    rank = torch.zeros_like(order)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    return torch.empty_like(rank, dtype=torch.float32).scatter_(1, order, rank.float())
