"""Retrieval among some rows, with how sure the figures are."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.analysis.pairs import Gallery
from atr_moco_plugin.evaluation.bootstrap import mean_intervals
from atr_moco_plugin.evaluation.metrics import (
    MEANS,
    matrix_queries,
    query_metrics,
    query_values,
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
def retrieve(scores: Tensor, gallery: Gallery) -> Retrieved:
    """Judge scores, in blocks of queries.

    Args:
        scores: ``[A, C]``, larger is closer.
        gallery: of the A and C rows.
    """
    queries = matrix_queries(scores, gallery.relevance)
    intervals: dict[str, Any] = {}
    for way, groups in zip(DIRECTIONS, gallery.groups, strict=True):
        ends = mean_intervals(query_values(queries[way]), groups)
        for name, interval in zip(MEANS, ends or (), strict=False):
            intervals[f"{way}_{name}"] = [100 * end for end in interval]
    return Retrieved(query_metrics(queries), intervals)
