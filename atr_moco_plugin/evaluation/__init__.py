"""Retrieval evaluation: embeddings of a split, cosines, re-ranking with a matching head, figures.

Here belong the way from a model and a split to R@k, median rank and mAP@10, on one process or
several, their expectation at random, plain-text tables and TREC files. May not import a host, a
recipe or the report.
"""

from __future__ import annotations

from atr_moco_plugin.evaluation.chance import chance_metrics
from atr_moco_plugin.evaluation.evaluation_sets import evaluation_set_name
from atr_moco_plugin.evaluation.metrics import relevance_metrics, retrieval_metrics
from atr_moco_plugin.evaluation.result_tables import rank_table, retrieval_table, split_report
from atr_moco_plugin.evaluation.tables import Table

__all__ = [
    "Table",
    "chance_metrics",
    "rank_table",
    "relevance_metrics",
    "retrieval_metrics",
    "retrieval_table",
    "split_report",
    "evaluation_set_name",
]
