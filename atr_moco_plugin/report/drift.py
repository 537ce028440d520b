"""Figures of the drift of keys: by their age at the end of a run, and by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from atr_moco_plugin.report.curves import PANELS, Curve, curve_panel
from atr_moco_plugin.report.figures import (
    BASELINE,
    MODALITY_COLORS,
    Panel,
    legend_above,
    panel,
    plain_axis,
)
from atr_moco_plugin.report.run_folder import Record, number, series


def drift_panels(rank: Sequence[Record]) -> list[Panel]:
    """How far keys have moved, by their age in the last record that says it, and by step.

    Args:
        rank: records of ``rank.jsonl``.
    """
    measured = [record for record in rank if _ages(record)]
    if not measured:
        return []
    last = measured[-1]
    panels = [_by_age(last)]
    youngest = min((age for of_source in _ages(last).values() for age in of_source), key=int)
    curves = []
    for name in _ages(last):
        path, color = ("drift", "sources", name), MODALITY_COLORS.get(name, BASELINE)
        curves.append(Curve(name, series(measured, "step", *path, "same", youngest), color))
        curves.append(Curve("", series(measured, "step", *path, "different"), color, ":"))
    words = dict(PANELS["drift"]["by_step"])
    words["title"] = words["title"].format(age=f"{int(youngest):,}")
    by_step = curve_panel(words, curves)
    return panels if by_step is None else [*panels, by_step]


def _by_age(record: Record) -> Panel:
    words, ages = PANELS["drift"]["by_age"], _ages(record)

    def plot(axes: Axes) -> None:
        ticks = sorted({int(age) for values in ages.values() for age in values})
        for name, values in ages.items():
            color = MODALITY_COLORS.get(name, BASELINE)
            x = sorted(map(int, values))
            axes.plot(x, [values[str(age)] for age in x], marker="o", markersize=3,
                      color=color, label=name)  # fmt: skip
            axes.axhline(
                number(record["drift"]["sources"][name].get("different")),
                color=color, linestyle=":", linewidth=1.2, zorder=1.9,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{age:,}" for age in ticks])
        axes.minorticks_off()
        plain_axis(axes)
        axes.set_xlabel("age of the key in steps")
        axes.set_ylabel(words["unit"])
        legend_above(axes)

    shown = "; ".join(
        f"{name} {values[age]:.4g} at {age} steps"
        for name, values in ages.items()
        for age in (min(values, key=int), max(values, key=int))
    )
    return panel(words["title"], words["aid"], f"{words['title']}: {shown}.", plot)


def _ages(record: Record) -> dict[str, dict[str, float]]:
    """Modality to age to cosine, without what is no number; only modalities that have one."""
    drift = record.get("drift")
    sources: Any = drift.get("sources") if isinstance(drift, Mapping) else None
    found = {}
    for name, source in (sources or {}).items():
        same: Any = source.get("same") if isinstance(source, Mapping) else None
        values = {age: number(x) for age, x in (same or {}).items() if number(x) == number(x)}
        if values:
            found[name] = values
    return found
