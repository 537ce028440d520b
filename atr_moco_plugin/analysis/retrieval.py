"""Retrieval among some rows, with how sure the figures are."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import Gallery
from atr_moco_plugin.evaluation.bootstrap import mean_intervals
from atr_moco_plugin.evaluation.metrics import (
    CUTOFFS,
    RetrievalMetrics,
    query_blocks,
    query_metrics,
)
from atr_moco_plugin.evaluation.relevance import DIRECTIONS


class Retrieved(NamedTuple):
    """What a matrix of scores retrieves.

    Attributes:
        figures: R@k, median rank and mAP@10 both ways, as
            :func:`~atr_moco_plugin.evaluation.metrics.relevance_metrics` gives them.
        intervals: the lowest and highest of R@k and mAP@10 with 95 % confidence, by a bootstrap
            over groups of pairs that share rows; none where there is one group.
    """

    figures: dict[str, float]
    intervals: dict[str, list[float]]


@torch.no_grad()
def retrieve(scores: Tensor, gallery: Gallery, seed: int = 0) -> Retrieved:
    """Judge scores, in blocks of queries.

    Args:
        scores: ``[A, C]``, larger is closer.
        gallery: of the A and C rows.
        seed: of the bootstrap.
    """
    metrics = RetrievalMetrics()
    for way in DIRECTIONS:
        matrix = scores if way == "a2t" else scores.T
        for start, block in query_blocks(matrix, matrix.size(1)):
            relevant = gallery.relevance.block(way, start, start + len(block))
            metrics.update(way, block, relevant)
    queries = metrics.queries()
    intervals: dict[str, Any] = {}
    names = (*(f"r{k}" for k in CUTOFFS), "map10")
    for way, groups in zip(DIRECTIONS, gallery.groups, strict=True):
        of = queries[way]
        hits = [(of.rank <= k).double() for k in CUTOFFS]
        ends = mean_intervals(torch.stack([*hits, of.precision], dim=1), groups, seed=seed)
        for name, interval in zip(names, ends or (), strict=False):
            intervals[f"{way}_{name}"] = [100 * end for end in interval]
    return Retrieved(query_metrics(queries), intervals)
