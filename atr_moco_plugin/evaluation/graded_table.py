"""The table of graded figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atr_moco_plugin.evaluation.graded import GRADED_FIGURES, graded_names
from atr_moco_plugin.evaluation.result_tables import cell, interval_cell, number
from atr_moco_plugin.evaluation.tables import Table


def graded_table(graded: Mapping[str, Any]) -> Table:
    """Graded figures of a split, a row for each system, named as its files in ``trec/``.

    Below each are its intervals. As text it is at most 100 columns wide.

    Args:
        graded: ``graded`` of a split of ``retrieval.json``.
    """
    intervals = graded.get("intervals") or {}
    level = f"  {100 * number(intervals.get('level')):g} %"
    rows = []
    for system, figures in (graded.get("systems") or {}).items():
        rows.append([system, *(cell(figures.get(name), 1) for name in graded_names())])
        ends = (intervals.get("systems") or {}).get(system)
        if ends:
            rows.append([level, *(interval_cell(ends.get(name), 1) for name in graded_names())])
    size = (
        f"{cell(graded.get('queries'), 0)} queries with {cell(graded.get('relevant'), 1)} relevant "
        "clips on average"
    )
    if graded.get("skipped"):
        size += f"; {cell(graded.get('skipped'), 0)} without one are left out"
    return Table(
        header=["text → audio", *GRADED_FIGURES],
        rows=rows,
        caption=f"Relevance of {graded.get('qrels', 'a file')}: {size}",
    )
