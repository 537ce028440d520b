"""Panels of values by step. ``panels.yaml`` says which values and has the words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes

from atr_moco_plugin.report.figures import (
    BASELINE,
    CYCLE,
    Color,
    Panel,
    legend_above,
    panel,
    plain_axis,
    sequence_colors,
    whole_numbers,
)
from atr_moco_plugin.report.run_folder import Record, Series, number, series

PANELS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("panels.yaml").read_text("utf-8"))

_MARKED_POINTS = 25


@dataclass(frozen=True)
class Curve:
    """A line of a panel.

    Attributes:
        name: in the legend; empty for none.
        values: steps and values, or one value for all steps.
        color: of the line.
        style: of the line, in matplotlib's words. Dotted lines are references for the others.
    """

    name: str
    values: Series | float
    color: Color
    style: str = "-"


def curve_panels(
    group: str,
    records: Sequence[Record],
    chance: Mapping[str, Any] | None = None,
    best_step: int | None = None,
) -> list[Panel]:
    """The panels of a group of ``panels.yaml`` without those of which nothing was logged.

    Args:
        group: ``"training"`` or ``"validation"``.
        records: of ``metrics/train.jsonl`` or ``metrics/valid.jsonl``.
        chance: figures of random scores on the same split, where they are known.
        best_step: the step to mark, of the checkpoint that was evaluated.
    """
    panels = []
    for words in PANELS[group]:
        lines = {}
        for name, key in words["lines"].items():
            lines.update(_logged(records, name, key))
        few = len(lines) <= len(CYCLE)
        colors = CYCLE if few else sequence_colors(len(lines))
        curves = []
        for (name, points), color in zip(lines.items(), colors, strict=False):
            level = number((chance or {}).get(words.get("chance", {}).get(name)))
            curves += [Curve(name, points, color), Curve("", level, color, ":")]
        curves += [Curve(name, x, BASELINE, ":") for name, x in words.get("levels", {}).items()]
        panels.append(curve_panel(words, curves, best_step))
    return [found for found in panels if found is not None]


def curve_panel(
    words: Mapping[str, Any], curves: Iterable[Curve], mark: float | None = None
) -> Panel | None:
    """A panel of curves by step.

    Args:
        words: title, unit, aid, and ``log`` or ``limits`` of the axis.
        curves: those without a value are left out.
        mark: a step to mark with a vertical line.

    Returns:
        The panel; ``None`` where nothing but references has values.
    """
    drawn = [curve for curve in curves if _has_values(curve)]
    described = [text for curve in drawn if curve.style != ":" for text in _described(curve)]
    if not described:
        return None

    def plot(axes: Axes) -> None:
        for curve in drawn:
            look: dict[str, Any] = {"color": curve.color, "linestyle": curve.style}
            look["label"] = curve.name or None
            if curve.style == ":":
                look |= {"linewidth": 1.2, "zorder": 1.9}
            if isinstance(curve.values, float):
                axes.axhline(curve.values, **look)
                continue
            steps, values = curve.values
            marked = len(steps) <= (_MARKED_POINTS if curve.style != ":" else 1)
            axes.plot(steps, values, marker="o" if marked else "", markersize=3, **look)
        if mark is not None:
            axes.axvline(mark, color=BASELINE, linewidth=0.9)
        if "limits" in words:
            axes.set_ylim(*words["limits"])
        plain_axis(axes, log=words.get("log", False) and all(map(_is_positive, drawn)))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_ylabel(words["unit"])
        legend_above(axes)

    title = words["title"]
    return panel(title, words["aid"], f"{title} by training step: {'; '.join(described)}.", plot)


def _logged(records: Sequence[Record], name: str, key: str) -> dict[str, Series]:
    """The series of a key. A list, as of learning rates, is one for each distinct schedule."""
    lists = (value for record in records if isinstance(value := record.get(key), list))
    found: dict[str, Series] = {}
    for index in range(max(map(len, lists), default=0)):
        steps, values = series(records, "Step", key, index)
        if len(values):
            found.setdefault(f"up to {values.max():.3g}", (steps, values))
    points = series(records, "Step", key)
    return found or ({name: points} if len(points[0]) else {})


def _has_values(curve: Curve) -> bool:
    if isinstance(curve.values, float):
        return math.isfinite(curve.values)
    return len(curve.values[0]) > 0


def _is_positive(curve: Curve) -> bool:
    return isinstance(curve.values, float) or bool((curve.values[1] > 0).all())


def _described(curve: Curve) -> Iterator[str]:
    """The first and the last value in words."""
    if isinstance(curve.values, float):
        return
    steps, values = curve.values
    last = f", {values[-1]:.4g} at step {steps[-1]:g}" if len(steps) > 1 else ""
    yield f"{curve.name} {values[0]:.4g} at step {steps[0]:g}{last}"
