"""Rank analysis of embedding spaces.

``measures``, ``spectrum`` and ``report`` are functions of a matrix; ``moments`` are running sums
over a queue; ``growth`` is the rule by which a queue grows; ``random_vectors`` is the baseline;
``drift`` compares the keys of a probe by their age; ``logger`` is the hook ``rank``, which writes
``rank.jsonl``. May not import data, a criterion, evaluation, the report of a run or a host.
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
