"""R-sum on validation against the time of training, a figure for each data and batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from atr_moco_plugin.report.figures import STYLE
from benchmarks.negatives.intervals import mean
from benchmarks.negatives.prices import Price
from benchmarks.negatives.rows import Row
from benchmarks.negatives.tables import by_variant

SHOWN = 8
"""Variants in a figure at most: the most wanted."""


def points(rows: Sequence[Row]) -> list[tuple[float, float, float, float]]:
    """Mean time, in runs of ``atc``, and R-sum with its interval, at each quarter of the runs of
    one variant."""
    found = []
    for quarter in range(1, 1 + min(len(row["valid"]) for row in rows)):
        times = []
        for row in rows:
            steps = row["steps"] * quarter // len(row["valid"])
            start = row["steps"] if row["start"] is None else row["start"]
            times.append(Price(**row["price"]).spent(steps, start) / row["budget"])
        score = mean([row["valid"][quarter - 1] for row in rows])
        found.append((sum(times) / len(times), *score))
    return found


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``negatives_DATA_BATCH.svg`` for each data and batch size.

    Args:
        rows: of runs.
        folder: where to.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for data, batch in dict.fromkeys((row["data"], row["batch"]) for row in rows):
        own = [row for row in rows if (row["data"], row["batch"]) == (data, batch)]
        with matplotlib.rc_context(fname=STYLE):
            figure = Figure(figsize=(7, 4), layout="constrained")
            axes = figure.subplots()
            for variant, found in list(by_variant(own).items())[:SHOWN]:
                time, score, low, high = zip(*points(found), strict=True)
                (line,) = axes.plot(time, score, marker="o", label=variant)
                if len(found) > 1:
                    axes.fill_between(time, low, high, color=line.get_color(), alpha=0.15)
            axes.set_xlabel("time, in runs of atc")
            axes.set_ylabel("R-sum on validation")
            axes.legend()
            file = folder / f"negatives_{data}_{batch}.svg"
            figure.savefig(file, metadata={"Date": None})
        files.append(file)
    return files
