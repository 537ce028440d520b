"""Which measure, read without the test split, tells R-sum on it?

Spearman's rank correlation of a measure of the queue or of held-out embeddings (those of the
validation split) and R-sum of the dual encoder on test, over runs of one data set and batch size.
Bootstrap intervals draw runs within each variant. What holds over all criteria may not hold within
one, so both are shown: within one, values are ranked among the runs of each variant, and the
correlation is over all those ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import rankdata

from atr_moco_plugin.evaluation import Table
from benchmarks.negatives.intervals import Interval, bootstrap, spearman
from benchmarks.negatives.rows import Row
from benchmarks.negatives.tables import dual

LEAST = 4
"""Runs that a correlation needs."""

TITLES = {
    "valid_r_sum": "R-sum of the last validation",
    "valid_own_loss": "validation loss of its own criterion",
    "valid_loss": "contrastive validation loss, own temperature",
    "valid_loss_fixed": "contrastive validation loss, temperature 0.07",
    "valid_loss_best": "contrastive validation loss, best temperature",
}
"""Of measures whose names are not plain; these are shown first."""


@dataclass(frozen=True)
class Prediction:
    """How well a measure tells R-sum.

    Attributes:
        measure: its name.
        runs: that have it.
        across: correlation over the runs of all variants.
        within: over the ranks within each variant; None where no variant has two runs.
    """

    measure: str
    runs: int
    across: Interval
    within: Interval | None


def report(rows: Sequence[Row]) -> str:
    """A table for each data and batch size with enough runs."""
    parts = []
    for data, batch in dict.fromkeys((row["data"], row["batch"]) for row in rows):
        own = distinct(row for row in rows if (row["data"], row["batch"]) == (data, batch))
        if len(own) < LEAST:
            continue
        found = predictions(own)
        lines = [
            [
                TITLES.get(x.measure, x.measure.replace("_", " ")),
                str(x.runs),
                x.across.text(2),
                "-" if x.within is None else x.within.text(2),
            ]
            for x in found
        ]
        header = ["measure", "runs", "over all criteria", "within each criterion"]
        parts.append(f"### {data}, batch {batch}\n\n{Table(header, lines).markdown()}")
    return "\n\n".join(parts) or f"No data has {LEAST} runs yet."


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Rows without those that are others over again: an option may change nothing on some data, as
    positives by ids do where no batch shares any."""
    by_figures: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        by_figures.setdefault((row["seed"], dual(row), *row["valid"]), row)
    return list(by_figures.values())


def predictions(rows: Sequence[Row]) -> list[Prediction]:
    """Of every measure that enough rows have: those of :data:`TITLES` first, the others by how
    strong they are over all criteria."""
    values = [measures(row) for row in rows]
    names = dict.fromkeys(name for own in values for name in own)
    found = []
    for name in names:
        there = [i for i, own in enumerate(values) if name in own]
        if len(there) >= LEAST:
            x = [values[i][name] for i in there]
            y = [dual(rows[i]) for i in there]
            made = predict(name, x, y, [rows[i]["variant"] for i in there])
            if math.isfinite(made.across.value):
                found.append(made)
    order = list(TITLES)
    first = [x for name in order for x in found if x.measure == name]
    rest = [x for x in found if x.measure not in TITLES]
    return first + sorted(rest, key=lambda x: -abs(x.across.value))


def measures(row: Row) -> dict[str, float]:
    """The finite measures of a row."""
    found = {**row["measures"], "valid_r_sum": row["valid"][-1] if row["valid"] else None}
    return {name: float(x) for name, x in found.items() if x is not None and math.isfinite(x)}


def predict(
    name: str, x: Sequence[float], y: Sequence[float], variants: Sequence[str]
) -> Prediction:
    """The correlations of a measure ``x`` with R-sum ``y``.

    Args:
        name: of the measure.
        x: a value for each run.
        y: R-sum of each run.
        variants: of each run.
    """
    groups = [[i for i, own in enumerate(variants) if own == v] for v in dict.fromkeys(variants)]
    across = bootstrap(groups, lambda rows: spearman([x[i] for i in rows], [y[i] for i in rows]))
    several = [group for group in groups if len(group) > 1]
    within = None
    if several:
        within = bootstrap(several, lambda rows: _within(x, y, rows, variants))
    return Prediction(name, len(x), across, within)


def _within(
    x: Sequence[float], y: Sequence[float], rows: Sequence[int], variants: Sequence[str]
) -> float:
    """Correlation of the ranks that values have among those of their variant, from -1 to 1."""
    a: list[float] = []
    b: list[float] = []
    for variant in dict.fromkeys(variants[i] for i in rows):
        own = [i for i in rows if variants[i] == variant]
        for values, into in ((x, a), (y, b)):
            placed = rankdata([values[i] for i in own])
            into += list(placed - placed.mean())
    norm = math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))
    return sum(p * q for p, q in zip(a, b, strict=True)) / norm if norm else math.nan
