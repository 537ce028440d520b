"""Retrieval evaluation: metrics, re-ranking with a matching head, and tables."""

from __future__ import annotations

from atr_moco_plugin.evaluation.chance import chance_metrics
from atr_moco_plugin.evaluation.metrics import (
    caption_relevance,
    metrics_from,
    relevance_metrics,
    retrieval_metrics,
)
from atr_moco_plugin.evaluation.rerank import rerank
from atr_moco_plugin.evaluation.tables import (
    format_table,
    rank_table,
    retrieval_table,
    split_report,
)
from atr_moco_plugin.evaluation.testsets import test_set_name

__all__ = [
    "caption_relevance",
    "chance_metrics",
    "format_table",
    "metrics_from",
    "rank_table",
    "relevance_metrics",
    "rerank",
    "retrieval_metrics",
    "retrieval_table",
    "split_report",
    "test_set_name",
]
