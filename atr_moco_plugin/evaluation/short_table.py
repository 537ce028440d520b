"""The figures of one split at a glance, as a run prints them when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atr_moco_plugin.evaluation.result_tables import (
    RETRIEVAL_COLUMNS,
    cell,
    interval_cell,
    interval_notes,
)
from atr_moco_plugin.evaluation.tables import Table


def short_table(result: Mapping[str, Any]) -> str:
    """The figures of one split at a glance: both directions, with and without re-ranking, and
    their intervals.

    Args:
        result: of :func:`~atr_moco_plugin.evaluation.split_figures.split_figures`.
    """
    systems = {"dual encoder": "dual", "re-ranked": "reranked", "chance": "chance"}
    intervals: Mapping[str, Any] = result.get("intervals", {})
    rows = []
    for way, direction in (("a2t", "audio to text"), ("t2a", "text to audio")):
        keys = [f"{way}_{x}" for x in RETRIEVAL_COLUMNS]
        for name, system in systems.items():
            if system in result:
                rows.append([f"{direction}, {name}", *(cell(result[system][x], 1) for x in keys)])
            if system in intervals:
                ends = (interval_cell(intervals[system].get(x), 1) for x in keys)
                rows.append([f"  {100 * intervals['level']:g} %", *ends])
    size = f"{result['clips']:,} clips, {result['captions']:,} captions"
    table = Table(["", *RETRIEVAL_COLUMNS.values()], rows, notes=interval_notes(result))
    return f"Retrieval on {result['test_set']}: {size}\n\n{table.text()}"
