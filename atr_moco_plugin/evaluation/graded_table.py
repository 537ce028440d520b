"""The table of graded figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atr_moco_plugin.evaluation.graded import GRADED_FIGURES
from atr_moco_plugin.evaluation.result_tables import cell
from atr_moco_plugin.evaluation.tables import Table


def graded_table(graded: Mapping[str, Any]) -> Table:
    """Graded figures of a split, a row for each system, named as its files in ``trec/``.

    Args:
        graded: ``graded`` of a split of ``retrieval.json``.
    """
    rows = [
        [system, *(cell(figures.get(f"t2a_{name}"), 1) for name in GRADED_FIGURES)]
        for system, figures in (graded.get("systems") or {}).items()
    ]
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
