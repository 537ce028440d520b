"""Rank analysis of embedding spaces: reports, pair measures, and a logger for queues.

Here belong measures of matrices and running sums over queues. May import torch, numpy, ``errors``
and ``queue``; never data, evaluation, a report or a host.
"""

from __future__ import annotations

from atr_moco_plugin.rank.logger import RankLogger
from atr_moco_plugin.rank.measures import alignment, modality_gap, uniformity
from atr_moco_plugin.rank.report import RankReport, rank_report
from atr_moco_plugin.rank.spectrum import RankMeasures

__all__ = [
    "RankLogger",
    "RankMeasures",
    "RankReport",
    "alignment",
    "modality_gap",
    "rank_report",
    "uniformity",
]
