"""Hubness: how unequally often the items of a gallery are found.

The k-occurrence of an item is the number of queries that have it among their k best. In a space of
many dimensions a few items, the hubs, are there for far too many queries, and others for none
(Radovanovic et al. 2010). It needs no relevance: it says what a ranking looks like, not whether it
is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.evaluation.relevance import Direction
from atr_moco_plugin.evaluation.rerank import DUAL
from atr_moco_plugin.evaluation.retrieval import OnScores

HUBNESS_K = 10
"""The usual k of the k-occurrence."""


class Hubness(TypedDict):
    """What :func:`hubness` says of a gallery.

    * ``skewness``: third standardised moment of the k-occurrence; 0 where all items are found
      equally often, large with a few large hubs.
    * ``never``: items that are among the best of no query, in percent of all.
    * ``largest``: k-occurrence of the largest hub; items that tie for the last places share them,
      so it need not be whole.
    * ``largest_item``: the number of that item, the first one of several.
    * ``mean``: mean k-occurrence, which is ``k * queries / items``: what every item would have.
    """

    skewness: float
    never: float
    largest: float
    largest_item: int
    mean: float


def hubness(occurrence: Tensor) -> Hubness:
    """Figures of a k-occurrence.

    Args:
        occurrence: ``[N]`` float64, of :func:`k_occurrence`.

    Raises:
        InputError: when there is no item, or no query was asked.

    Example:
        >>> found = hubness(torch.tensor([4.0, 0.0, 1.0, 1.0]))
        >>> round(found["skewness"], 2), found["never"], found["largest"], found["largest_item"]
        (0.89, 25.0, 4.0, 0)
    """
    if len(occurrence) == 0 or not float(occurrence.sum()) > 0:
        raise InputError("Hubness is of at least one query and one item, and there were none.")
    centred = occurrence - occurrence.mean()
    spread = float(centred.square().mean().sqrt())
    # Where all are equal up to rounding there is no skew, nor a number for it.
    even = spread <= 1e-12 * float(occurrence.mean())
    return {
        "skewness": 0.0 if even else float((centred / spread).pow(3).mean()),
        "never": 100 * float((occurrence == 0).double().mean()),
        "largest": float(occurrence.max()),
        "largest_item": int(occurrence.argmax()),
        "mean": float(occurrence.mean()),
    }


def top_counts(scores: Tensor, k: int = HUBNESS_K) -> Tensor:
    """How many of n queries have each item among their k best.

    Args:
        scores: ``[n, N]``, any real dtype, without NaN, larger is better.
        k: number of best items; with fewer items, all of them.

    Returns:
        ``[N]`` float64. Items that tie for the last of the k places share them equally, so that
        the order of the items plays no part: equal captions are found equally often.
    """
    k = min(k, scores.size(1))
    last = scores.topk(k).values[:, -1:]
    above, level = scores > last, scores == last
    left = k - above.sum(dim=1, keepdim=True)
    share = left.double() / level.sum(dim=1, keepdim=True)
    return above.sum(dim=0).double() + (level * share).sum(dim=0)


def k_occurrence(queries: Tensor, items: Tensor, k: int = HUBNESS_K) -> Tensor:
    """How many queries have each item among their k best, by cosine.

    Memory beyond the arguments is bounded: queries are taken in blocks.

    Args:
        queries: ``[Q, d]`` unit-norm, any real dtype.
        items: ``[N, d]`` unit-norm.
        k: number of best items.

    Returns:
        ``[N]`` float64.
    """
    total = torch.zeros(len(items), dtype=torch.float64, device=items.device)
    wide = items.double().T
    for _, block in query_blocks(queries, len(items)):
        # Ties are those of float32, as in the figures of retrieval.
        total += top_counts((block.double() @ wide).float(), k)
    return total


class Occurrences:
    """The k-occurrence in both directions, collected from blocks of queries.

    Args:
        k: number of best items.
    """

    def __init__(self, k: int = HUBNESS_K) -> None:
        self.k = k
        self._counts: dict[Direction, Tensor] = {}

    def update(self, direction: Direction, scores: Tensor) -> None:
        """Take the scores ``[n, items]`` of the next n queries of a direction."""
        counts = top_counts(scores, self.k).cpu()
        self._counts[direction] = self._counts.get(direction, 0.0) + counts

    def watch(self, on_scores: OnScores | None = None) -> OnScores:
        """What takes the cosines out of the scores of all systems, and hands all on."""

        def take(
            direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
        ) -> None:
            if system == DUAL.name:
                self.update(direction, scores)
            if on_scores is not None:
                on_scores(direction, system, start, scores, relevant)

        return take

    def compute(self) -> dict[Direction, Hubness]:
        """The figures of each direction that was updated."""
        return {direction: hubness(counts) for direction, counts in self._counts.items()}

    def named(self, clips: Sequence[str], captions: Sequence[str]) -> dict[str, Any]:
        """For ``hubness`` in ``retrieval.json``: k, and the figures of each direction with
        ``largest_name``, the clip or the caption that is the largest hub."""
        names: dict[Direction, Sequence[str]] = {"a2t": captions, "t2a": clips}
        return {
            "k": self.k,
            **{
                way: {**found, "largest_name": names[way][found["largest_item"]]}
                for way, found in self.compute().items()
            },
        }
