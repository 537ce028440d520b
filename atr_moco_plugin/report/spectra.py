"""Figures of the rank analysis: spectra over training, and rank measures beside random vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from atr_moco_plugin.rank.random_vectors import random_spectra
from atr_moco_plugin.rank.spectrum import NORMALIZERS, normalize
from atr_moco_plugin.report.figures import (
    AUDIO,
    BASELINE,
    CYCLE,
    SEQUENCE,
    TEXT,
    Panel,
    legend_above,
    panel,
    plain_log_axis,
    step_axis,
    whole_numbers,
)
from atr_moco_plugin.report.run_folder import Record, number, series

_MAX_LINES = 12
_KINDS = {"raw": "raw", "centered": "centred"}
# Far below those of random vectors, on a linear axis one line at the bottom.
_LOG = ("participation_ratio", "stable_rank")
_MEASURES = {
    "rankme": ("RankMe", "dimensions", "How many dimensions the spectrum fills evenly (exponential "
               "of its entropy)"),
    "participation_ratio": ("Participation ratio", "dimensions", "As RankMe, on squared singular "
                            "values, so that the strongest directions count more"),
    "stable_rank": ("Stable rank", "dimensions", "Energy of all directions in units of the "
                    "strongest one"),
    "count": ("Count above the threshold", "dimensions", "How many singular values exceed the "
              "threshold of the run's rank hook"),
    "alpha_req": ("Alpha-ReQ", "exponent", "How steeply the spectrum falls as a power law; 0 is "
                  "flat"),
}  # fmt: skip


def spectrum_panels(rank: Sequence[Record]) -> list[Panel]:
    """Singular values, one line a step (12 at most), for each source raw and centred.

    Args:
        rank: records of ``rank.jsonl``.
    """
    panels = []
    for source in _sources(rank):
        for kind, word in _KINDS.items():
            lines = [
                (number(record["step"]), np.array([number(v) for v in spectrum], dtype=float))
                for record in rank
                if (spectrum := _report(record, source, kind).get("spectrum"))
            ]
            if lines:
                random = _random(rank, source, kind)
                panels.append(_spectrum_panel(source, word, lines, random))
    return panels


def measure_panels(rank: Sequence[Record]) -> list[Panel]:
    """Rank measures by step beside random vectors of the same shape, and the pair measures.

    Args:
        rank: records of ``rank.jsonl``.
    """
    sources = _sources(rank)
    panels = [_measure_panel(rank, sources, measure) for measure in _MEASURES]
    panels.append(_lines_panel(
        "Uniformity", "log mean potential",
        "0 when all embeddings are equal; lower is spread more evenly over the sphere.",
        {name: series(rank, "step", "sources", name, "uniformity") for name in sources},
        {name: _colour(name, index) for index, name in enumerate(sources)},
    ))  # fmt: skip
    pairs = list(dict.fromkeys(name for record in rank for name in record.get("pairs") or {}))
    for pair in pairs:
        title = "Alignment and modality gap" + ("" if len(pairs) == 1 else f": {pair}")
        panels.append(_lines_panel(
            title, "distance",
            "Alignment is the mean squared distance of matching pairs (2 for unrelated ones, lower "
            "is better), the gap the distance between the two modalities' means.",
            {
                "alignment": series(rank, "step", "pairs", pair, "alignment"),
                "modality gap": series(rank, "step", "pairs", pair, "modality_gap"),
            },
            {"alignment": CYCLE[2], "modality gap": CYCLE[3]},
        ))  # fmt: skip
    return [figure for figure in panels if figure is not None]


def _sources(rank: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in rank for name in record.get("sources") or {}))


def _report(record: Record, source: str, kind: str) -> dict[str, Any]:
    return ((record.get("sources") or {}).get(source) or {}).get(kind) or {}


def _colour(source: str, index: int) -> str:
    return {"audio": AUDIO, "text": TEXT}.get(source, CYCLE[(2 + index) % len(CYCLE)])


def _evenly(count: int, at_most: int) -> list[int]:
    """Indices from the first to the last, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, at_most))})


def _random(rank: Sequence[Record], source: str, kind: str) -> tuple[str, NDArray] | None:
    """Name and mean spectrum of random vectors of the shape that was logged last."""
    record = next(record for record in reversed(rank) if _report(record, source, kind))
    shape = record["sources"][source]
    rows, dim, normalizer = shape.get("rows"), shape.get("dim"), record.get("normalizer", "max")
    if not (isinstance(rows, int) and isinstance(dim, int)) or normalizer not in NORMALIZERS:
        return None
    draws = random_spectra(rows, dim, kind == "centered")
    mean = torch.stack([normalize(values, normalizer) for values in draws]).mean(dim=0)
    return f"random, {rows:,} × {dim:,}", mean.numpy()


def _spectrum_panel(
    source: str,
    word: str,
    lines: list[tuple[float, NDArray]],
    random: tuple[str, NDArray] | None,
) -> Panel:
    logged = len(lines)
    lines = [lines[i] for i in _evenly(logged, _MAX_LINES)]
    steps = [step for step, _ in lines]

    def plot(axes: Axes) -> None:
        scale = Normalize(steps[0], max(steps[-1], steps[0] + 1))
        for step, values in lines:
            _plot_spectrum(axes, values, color=SEQUENCE(scale(step)), linewidth=1.2)
        if random is not None:
            name, values = random
            _plot_spectrum(axes, values, color=BASELINE, linestyle="--", label=name)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        plain_log_axis(axes, "y")
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_xlabel("index of the singular value")
        axes.set_ylabel("normalised singular value")
        if len(steps) > 1:
            bar = axes.figure.colorbar(
                ScalarMappable(scale, SEQUENCE), ax=axes, label="step", pad=0.02, aspect=30,
                ticks=whole_numbers(),
            )  # fmt: skip
            bar.outline.set_visible(False)

    which = f"from step {steps[0]:g} to {steps[-1]:g}" if len(steps) > 1 else f"step {steps[0]:g}"
    return panel(
        f"Singular values, {source}, {word}",
        f"{len(lines)} of {logged} logged steps, a line each, from blue (first) to orange (last); "
        "a flatter line means that more dimensions are in use, and the dashed one is what random "
        "vectors of the final shape give.",
        f"Singular values of the {source} embeddings, {word}, on a logarithmic axis, "
        f"{len(lines)} lines, {which}, beside random vectors.",
        plot,
        height=3.1,
    )


def _plot_spectrum(axes: Axes, values: NDArray, **style: Any) -> None:
    index = np.arange(1, len(values) + 1)
    positive = values > 0
    axes.plot(index[positive], values[positive], **style)


def _measure_panel(rank: Sequence[Record], sources: list[str], measure: str) -> Panel | None:
    title, label, what = _MEASURES[measure]
    lines, colours, baselines = {}, {}, []
    for index, source in enumerate(sources):
        for kind, word in _KINDS.items():
            name = f"{source}, {word}"
            lines[name] = series(rank, "step", "sources", source, kind, measure)
            colours[name] = _colour(source, index)
            baselines.append(series(rank, "step", "sources", source, kind, "random", measure))
    return _lines_panel(
        title, label,
        f"{what}; dashed lines are centred, the dotted grey ones random vectors of the same shape.",
        lines, colours, baselines, log=measure in _LOG,
    )  # fmt: skip


def _lines_panel(
    title: str,
    label: str,
    aid: str,
    lines: dict[str, Any],
    colours: dict[str, str],
    baselines: Sequence[Any] = (),
    *,
    log: bool = False,
) -> Panel | None:
    lines = {name: line for name, line in lines.items() if len(line[0])}
    if not lines:
        return None

    def plot(axes: Axes) -> None:
        for steps, values in baselines:
            marker = "." if len(steps) == 1 else ""
            axes.plot(steps, values, color=BASELINE, linestyle=":", linewidth=1.2, marker=marker)
        for name, (steps, values) in lines.items():
            axes.plot(
                steps, values, label=name, color=colours[name],
                linestyle="--" if name.endswith(_KINDS["centered"]) else "-",
                marker="o" if len(steps) == 1 else "", markersize=3,
            )  # fmt: skip
        if baselines:
            axes.plot([], [], color=BASELINE, linestyle=":", label="random")
        if log:
            plain_log_axis(axes, "y")
        step_axis(axes)
        axes.set_ylabel(label)
        legend_above(axes)

    last = [f"{name} {values[-1]:.4g}" for name, (_, values) in lines.items()]
    return panel(title, aid, f"{title} by training step; at the end {', '.join(last)}.", plot)
