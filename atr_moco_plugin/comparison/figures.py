"""Wins and losses by query, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from atr_moco_plugin.comparison.assemble import Comparison, Pair, log_gain
from atr_moco_plugin.comparison.results import best_ranks
from atr_moco_plugin.comparison.tables import WAYS
from atr_moco_plugin.errors import counted
from atr_moco_plugin.evaluation.metrics import CUTOFFS
from atr_moco_plugin.report.figures import BASELINE, Panel, legend_above, panel, whole_numbers

WIN, LOSS = "#2f9e62", "#d6456b"
"""Colours of what got better and worse."""

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]


def pair_panels(comparison: Comparison, pair: Pair) -> Iterator[Panel]:
    """For each direction, all queries in the order of their gain, and those that moved into and
    out of the first k."""
    base, ours = (comparison.sides[n].name for n in (pair.base, pair.ours))
    for way, words in WAYS.items():
        if way not in comparison.results[0][0].ways:
            continue
        before = best_ranks(comparison.results[pair.base], way)
        after = best_ranks(comparison.results[pair.ours], way)
        gain = np.sort(log_gain(before, after))[::-1]
        better, equal, worse = pair.better[way]
        yield panel(
            f"{words.capitalize()}: {ours} beside {base}, query by query",
            f"Every query, from the one that {ours} answers best beside {base} to the worst: at 4 "
            "its rank is a quarter of what it was, at 1/4 four times as large.",
            f"{counted(better, 'query', 'queries')} better, {equal} alike, {worse} worse.",
            partial(_waterfall, gain=gain),
        )
        gained, lost = _moved(before, after)
        yield panel(
            f"{words.capitalize()}: into and out of the first k, {ours} beside {base}",
            f"Queries with a right answer among the first k by {ours} and not by {base}, and the "
            "other way round; the difference of the two is the difference of R@k.",
            "; ".join(
                f"k = {k}: {gain:.0f} gained, {loss:.0f} lost"
                for k, gain, loss in zip(CUTOFFS, gained, lost, strict=True)
            ),
            partial(_bars, gained=gained, lost=lost),
        )


def _moved(before: Places, after: Places) -> tuple[list[float], list[float]]:
    """Gained and lost hits for each k, over several runs the mean of all pairs of runs."""
    gained, lost = [], []
    for k in CUTOFFS:
        was, now = (before <= k).mean(axis=0), (after <= k).mean(axis=0)
        gained.append(float(((1 - was) * now).sum()))
        lost.append(float((was * (1 - now)).sum()))
    return gained, lost


def _waterfall(axes: Axes, gain: Numbers) -> None:
    place = np.arange(len(gain) + 1)
    times = 2.0**gain
    for color, part in ((WIN, np.maximum(times, 1)), (LOSS, np.minimum(times, 1))):
        axes.stairs(part, place, baseline=1, fill=True, color=color)
    axes.axhline(1, color=BASELINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_yscale("log", base=4 if times.max() / times.min() > 16 else 2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _fraction(value)))
    axes.xaxis.set_major_locator(whole_numbers())
    axes.set_xlim(0, len(gain))
    axes.set_xlabel("queries")
    axes.set_ylabel("times better")


def _fraction(value: float) -> str:
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def _bars(axes: Axes, gained: list[float], lost: list[float]) -> None:
    place = np.arange(len(CUTOFFS))
    width = 0.38
    for offset, values, color, label in (
        (-width / 2, gained, WIN, "gained"),
        (width / 2, lost, LOSS, "lost"),
    ):
        bars = axes.bar(place + offset, values, width, color=color, label=label)
        axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_axisbelow(True)
    axes.set_xticks(place, [f"R@{k}" for k in CUTOFFS])
    axes.margins(y=0.15)
    axes.set_ylabel("queries")
    legend_above(axes)
