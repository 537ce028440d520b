"""Figures of text-to-audio retrieval where a sentence has several relevant clips, with grades.

They are trec_eval's, under its names. Those of :mod:`~atr_moco_plugin.evaluation.metrics` know
relevant and irrelevant alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.evaluation.bootstrap import LEVEL, REPLICATES, SEED, mean_intervals
from atr_moco_plugin.evaluation.metrics import query_blocks
from atr_moco_plugin.evaluation.qrels import Qrels
from atr_moco_plugin.evaluation.relevance import Direction

GRADED_FIGURES = ("map_cut_10", "map_cut_16", "ndcg_cut_10", "success_5", "Rprec")
"""Names of the measures of :func:`graded_measures`, trec_eval's own."""

_DEPTH = 16
"""The largest cutoff of a measure but R-precision, whose cutoff is the number of relevant items."""


@torch.no_grad()
def graded_measures(scores: Tensor, grades: Tensor) -> dict[str, Tensor]:
    """trec_eval's measures of each query.

    With R items of grade 1 or more, and P(p) the precision among the first p items:

    * ``map_cut_k``: the sum of P(p) over the relevant items among the first k, divided by R. DCASE
      2025 ranks systems by ``map_cut_16``. The package's own ``map10`` divides by ``min(10, R)``:
      the two differ where R is more than 10.
    * ``ndcg_cut_10``: the sum of ``grade / log2(p + 1)`` over the first 10 items, divided by the
      largest that these grades allow (Järvelin and Kekäläinen, 2002).
    * ``success_5``: 1 where one of the first 5 items is relevant, a hit rate.
    * ``Rprec``: P(R).

    Among items with equal scores the lower grade comes first, so that a constant score gives the
    worst figures. trec_eval orders them by their names; without ties the figures are its own.

    Args:
        scores: ``[n, items]``, any real dtype, without NaN; larger is better.
        grades: ``[n, items]`` integers of 0 or more; 0 is irrelevant.

    Returns:
        ``[n]`` float64 in [0, 1] for each of :data:`GRADED_FIGURES`; all 0 where R is 0.

    Raises:
        ValueError: when the shapes differ, or a grade is negative.

    Example:
        >>> found = graded_measures(torch.tensor([[0.9, 0.7, 0.5]]), torch.tensor([[1, 0, 2]]))
        >>> [round(float(value), 3) for value in found.values()]
        [0.833, 0.833, 0.76, 1.0, 0.5]
    """
    if scores.shape != grades.shape or scores.dim() != 2:
        raise ValueError(
            f"Scores {list(scores.shape)} and grades {list(grades.shape)} must both be [n, items]."
        )
    if grades.numel() and int(grades.min()) < 0:
        raise ValueError(f"A grade is {int(grades.min())}; the lowest is 0, which is irrelevant.")
    relevant = (grades > 0).sum(dim=1)
    depth = min(max(_DEPTH, int(relevant.max()) if len(relevant) else 0), scores.size(1))
    ranked = _in_order(scores, grades)[:, :depth].double()
    hits = (ranked > 0).double()
    place = torch.arange(1, depth + 1, device=scores.device)
    precision = hits * hits.cumsum(dim=1) / place
    total = relevant.clamp_min(1).double()
    discount = (place[:10] + 1.0).double().log2()
    best = grades.topk(min(10, scores.size(1)), dim=1).values.double()
    ideal = (best / discount).sum(dim=1)
    gain = (ranked[:, :10] / discount).sum(dim=1)
    return {
        "map_cut_10": precision[:, :10].sum(dim=1) / total,
        "map_cut_16": precision[:, :16].sum(dim=1) / total,
        # Rounding may make it a little more than 1.
        "ndcg_cut_10": (gain / torch.where(ideal > 0, ideal, 1.0)).clamp_max(1),
        "success_5": hits[:, :5].amax(dim=1),
        "Rprec": torch.where(place <= relevant[:, None], hits, 0.0).sum(dim=1) / total,
    }


def _in_order(scores: Tensor, grades: Tensor) -> Tensor:
    """Grades of each row by falling score; among equal scores the lower grade comes first."""
    rising, by_grade = grades.sort(dim=1)
    order = scores.gather(1, by_grade).sort(dim=1, descending=True, stable=True).indices
    return rising.gather(1, order)


class GradedMetrics:
    """Graded figures of every system, collected from blocks of queries.

    Pass it as ``on_scores`` to :func:`~atr_moco_plugin.evaluation.retrieval.rank_queries`.

    Args:
        qrels: which clips are relevant to which captions. Only its queries are measured.
    """

    def __init__(self, qrels: Qrels) -> None:
        self._qrels = qrels
        self._found: dict[str, list[Tensor]] = {}

    def __call__(
        self, direction: Direction, system: str, start: int, scores: Tensor, relevant: Tensor
    ) -> None:
        """Take the next n queries of a system.

        Args:
            direction: ``a2t`` blocks are left out: the file judges clips for a sentence.
            system: its name.
            start: number of the first query.
            scores: ``[n, items]``.
            relevant: not used, since the file says what is relevant.
        """
        if direction != "t2a":
            return
        first, last = self._qrels.within(start, start + len(scores))
        asked = self._qrels.queries[first:last].to(scores.device) - start
        for at, rows in query_blocks(asked, scores.size(1)):
            grades = self._qrels.block(first + at, first + at + len(rows)).to(scores.device)
            measures = graded_measures(scores[rows], grades)
            values = torch.stack([measures[name] for name in GRADED_FIGURES], dim=1)
            self._found.setdefault(system, []).append(values.cpu())

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """The systems, and ``[Q, 5]`` float64 of each: a row for each query that has a relevant
        clip, a column for each of :data:`GRADED_FIGURES`."""
        answerable = self._qrels.relevant > 0
        for system, parts in self._found.items():
            yield system, torch.cat(parts)[answerable]

    def compute(self, cluster: Tensor) -> dict[str, Any]:
        """The figures and their intervals, for ``retrieval.json``.

        Args:
            cluster: ``[C]`` int64, the cluster of each caption, usually its clip:
                :attr:`~atr_moco_plugin.evaluation.queries.SplitQueries.cluster` of ``t2a``.

        Returns:
            ``qrels``, the name of the file; ``queries``, how many have a relevant clip;
            ``skipped``, how many were judged and have none, which are left out (trec_eval counts
            them as 0); ``relevant``, the mean number of relevant clips of the others; ``systems``,
            from a system's name to its figures, ``t2a_`` before each of :data:`GRADED_FIGURES`,
            in percent; ``intervals`` with ``level``, ``replicates``, ``seed``, ``clusters`` and, by
            system and figure, lowest and highest value (:func:`mean_intervals
            <atr_moco_plugin.evaluation.bootstrap.mean_intervals>`). A single cluster has none.
        """
        relevant = self._qrels.relevant
        answerable = relevant[relevant > 0]
        clusters = cluster.cpu()[self._qrels.queries[relevant > 0]]
        intervals: dict[str, dict[str, list[float]]] = {}
        for system, values in self.values():
            ends = mean_intervals(values, clusters, seed=SEED)
            if ends is not None:
                # Sums of other numbers of threads differ in digits that mean nothing.
                rounded = [[round(100 * end, 4) for end in pair] for pair in ends]
                intervals[system] = dict(zip(graded_names(), rounded, strict=True))
        return {
            "qrels": self._qrels.name,
            "queries": len(answerable),
            "skipped": len(relevant) - len(answerable),
            "relevant": float(answerable.double().mean()),
            "systems": {
                system: dict(zip(graded_names(), (100 * values.mean(dim=0)).tolist(), strict=True))
                for system, values in self.values()
            },
            "intervals": {
                "level": LEVEL,
                "replicates": REPLICATES,
                "seed": SEED,
                "clusters": len(clusters.unique()),
                "systems": intervals,
            },
        }


def graded_names() -> Sequence[str]:
    """Names of the figures in ``retrieval.json``, such as ``t2a_map_cut_16``."""
    return [f"t2a_{name}" for name in GRADED_FIGURES]
