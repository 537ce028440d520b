"""Figures of the training curves: losses, recalls and the schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from atr_moco_plugin.report.figures import (
    BASELINE,
    CYCLE,
    SEQUENCE,
    Panel,
    legend_above,
    panel,
    plain_axis,
    plain_log_axis,
    step_axis,
)
from atr_moco_plugin.report.run_folder import Record, Series, number, series

_LOSSES = ("Loss", "ATC Loss", "ATM Loss")
_RECALLS = ("R@1", "R@5", "R@10")
_FEW = 25


def training_panels(train: Sequence[Record]) -> list[Panel]:
    """Losses, accuracy of the matching head, and the schedules; what was not logged is left out.

    Args:
        train: records of ``metrics/train.jsonl``.
    """
    panels = [
        _panel(
            "Training loss", "loss, nats",
            "Lower is better; the total is the weighted sum of the contrastive (ATC) and the "
            "matching loss (ATM), and a jump where the queue enters the loss is expected.",
            {name: series(train, "Step", name) for name in _LOSSES},
        ),
        _panel(
            "Accuracy of the matching head", "share of pairs",
            "Share of pairs that the matching head tells apart; 0.67 is reached by always saying "
            "“no match”, since two of three pairs are hard negatives.",
            {"accuracy": series(train, "Step", "ATM Accuracy")},
            baselines={"always “no match”": 2 / 3},
        ),
        _panel(
            "Learning rate", "learning rate",
            "One line for each distinct schedule of the optimizer's parameter groups.",
            _learning_rates(train),
        ),
        _panel(
            "Temperature", "tau",
            "Similarities are divided by this learned value; smaller sharpens the softmax.",
            {"temperature": series(train, "Step", "Temperature")},
        ),
        _panel(
            "Soft targets and queue", "share",
            "Alpha is the weight of the momentum model's soft targets, fill the share of the "
            "queue's rows that hold embeddings.",
            {
                "alpha": series(train, "Step", "Alpha"),
                "queue fill": series(train, "Step", "Queue Fill"),
            },
        ),
        _panel(
            "Gradient norm", "norm",
            "Before clipping; spikes that the loss shows too point to a learning rate that is too "
            "high.",
            {"gradient norm": series(train, "Step", "Gradient Norm")},
            log=True,
        ),
    ]  # fmt: skip
    return [figure for figure in panels if figure is not None]


def recall_panels(
    valid: Sequence[Record], chance: Mapping[str, Any], best_step: int | None
) -> list[Panel]:
    """Recalls at every validation beside chance.

    Args:
        valid: records of ``metrics/valid.jsonl``.
        chance: figures of random scores on the same split; empty when they are not known.
        best_step: the step whose checkpoint was evaluated; marked.
    """
    panels = []
    for way, name in (("a2t", "Audio to text"), ("t2a", "Text to audio")):
        lines = {cut: series(valid, "Step", f"{way.upper()} {cut}") for cut in _RECALLS}
        levels = {cut: number(chance.get(f"{way}_{cut.lower().replace('@', '')}")) for cut in lines}
        panels.append(
            _panel(
                f"{name}: recall on validation",
                "percent of queries",
                "Share of queries with a right answer among the first 1, 5 or 10; dotted lines are "
                "random scores, a vertical line marks the checkpoint that was kept.",
                lines,
                chance=levels,
                mark=best_step,
                limits=(0, 100),
            )  # fmt: skip
        )
    sums = {
        "dual encoder": series(valid, "Step", "R-sum"),
        "re-ranked": series(valid, "Step", "reranked_r_sum"),
    }
    panels.append(
        _panel(
            "R-sum on validation",
            "R-sum",
            "Sum of the six recalls, 600 at most; the checkpoint with the highest value is kept "
            "(vertical line), and the dotted line is chance.",
            sums,
            chance={"dual encoder": number(chance.get("r_sum"))},
            mark=best_step,
        )  # fmt: skip
    )
    return [figure for figure in panels if figure is not None]


def _learning_rates(train: Sequence[Record]) -> dict[str, Series]:
    """The distinct schedules, named by their highest value."""
    groups = max((len(_rates(record)) for record in train), default=0)
    lines: dict[str, Series] = {}
    for group in range(groups):
        steps, values = series(train, "Step", "Learning Rate", group)
        if len(values):
            lines.setdefault(f"up to {values.max():.3g}", (steps, values))
    return lines or {"learning rate": series(train, "Step", "Learning Rate")}


def _rates(record: Record) -> list[Any]:
    rates = record.get("Learning Rate")
    return rates if isinstance(rates, list) else []


def _panel(
    title: str,
    label: str,
    aid: str,
    lines: Mapping[str, Series],
    *,
    chance: Mapping[str, float] | None = None,
    baselines: Mapping[str, float] | None = None,
    mark: float | None = None,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Panel | None:
    lines = {name: line for name, line in lines.items() if len(line[0])}
    if not lines:
        return None

    # More lines than colours, as with a learning rate for every layer, are a family without names.
    few = len(lines) <= len(CYCLE)
    colours = CYCLE if few else SEQUENCE(np.linspace(0, 1, len(lines)))

    def plot(axes: Axes) -> None:
        for (name, (steps, values)), colour in zip(lines.items(), colours, strict=False):
            marker = "o" if len(steps) <= _FEW else ""
            axes.plot(steps, values, marker=marker, markersize=3, color=colour, label=name)
            if math.isfinite(level := (chance or {}).get(name, math.nan)):
                axes.axhline(level, color=colour, linestyle=":", linewidth=1.2)
        for name, level in (baselines or {}).items():
            axes.axhline(level, color=BASELINE, linestyle=":", linewidth=1.2, label=name)
        if mark is not None:
            axes.axvline(mark, color=BASELINE, linewidth=0.9)
        if limits:
            axes.set_ylim(*limits)
        if log and all((values > 0).all() for _, values in lines.values()):
            plain_log_axis(axes, "y")
        else:
            plain_axis(axes)
        step_axis(axes)
        axes.set_ylabel(label)
        if few:
            legend_above(axes)

    return panel(title, aid, _alt(title, lines), plot)


def _alt(title: str, lines: Mapping[str, Series]) -> str:
    """First and last value of each line."""
    parts = [
        f"{name} {values[0]:.4g} at step {steps[0]:g}"
        + (f", {values[-1]:.4g} at step {steps[-1]:g}" if len(steps) > 1 else "")
        for name, (steps, values) in lines.items()
    ]
    return f"{title} by training step: {'; '.join(parts)}."
