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

from atr_moco_plugin.evaluation.result_tables import MATRICES
from atr_moco_plugin.rank.random_vectors import random_spectra
from atr_moco_plugin.rank.spectrum import NORMALIZERS, normalize
from atr_moco_plugin.report.curves import PANELS, Curve, curve_panel
from atr_moco_plugin.report.figures import (
    BASELINE,
    CYCLE,
    MODALITY_COLORS,
    SEQUENCE,
    Panel,
    panel,
    plain_axis,
    whole_numbers,
)
from atr_moco_plugin.report.run_folder import Record, number, series

Spectrum = NDArray[np.float64]

_MAX_LINES = 12


def spectrum_panels(rank: Sequence[Record]) -> list[Panel]:
    """Singular values, one line a step (12 at most), for each source raw and centred.

    Args:
        rank: records of ``rank.jsonl``.
    """
    panels = []
    for source in _names(rank, "sources"):
        for kind, word in MATRICES.items():
            lines = [
                (number(record["step"]), np.array([number(v) for v in spectrum], dtype=float))
                for record in rank
                if (spectrum := _measured(record, source, kind).get("spectrum"))
            ]
            if lines:
                panels.append(_spectrum_panel(source, word, lines, _random(rank, source, kind)))
    return panels


def measure_panels(rank: Sequence[Record]) -> list[Panel]:
    """Rank measures by step beside random vectors of the same shape, and the pair measures.

    Args:
        rank: records of ``rank.jsonl``.
    """
    sources = {
        name: MODALITY_COLORS.get(name, CYCLE[(2 + index) % len(CYCLE)])
        for index, name in enumerate(_names(rank, "sources"))
    }
    panels = []
    for words in PANELS["measures"]["panels"]:
        curves: list[Curve] = []
        random: list[Curve] = []
        for source, color in sources.items():
            for kind, word in MATRICES.items():
                path = ("sources", source, kind)
                values = series(rank, "step", *path, words["measure"])
                style = "--" if kind == "centered" else "-"
                curves.append(Curve(f"{source}, {word}", values, color, style))
                values = series(rank, "step", *path, "random", words["measure"])
                random.append(Curve("" if random else "random", values, BASELINE, ":"))
        aid = f"{words['aid']}; {PANELS['measures']['lines']}"
        panels.append(curve_panel({**words, "aid": aid}, curves + random))
    curves = [
        Curve(name, series(rank, "step", "sources", name, "uniformity"), color)
        for name, color in sources.items()
    ]
    panels.append(curve_panel(PANELS["uniformity"], curves))
    pairs = _names(rank, "pairs")
    for pair in pairs:
        words = dict(PANELS["pairs"])
        words["title"] += f": {pair}" if len(pairs) > 1 else ""
        curves = [
            Curve(name, series(rank, "step", "pairs", pair, key), color)
            for name, key, color in (
                ("alignment", "alignment", CYCLE[2]),
                ("modality gap", "modality_gap", CYCLE[3]),
            )
        ]
        panels.append(curve_panel(words, curves))
    return [found for found in panels if found is not None]


def _names(rank: Sequence[Record], key: str) -> list[str]:
    return list(dict.fromkeys(name for record in rank for name in record.get(key) or {}))


def _measured(record: Record, source: str, kind: str) -> dict[str, Any]:
    return ((record.get("sources") or {}).get(source) or {}).get(kind) or {}


def _random(rank: Sequence[Record], source: str, kind: str) -> tuple[str, Spectrum] | None:
    """Name and mean spectrum of random vectors of the shape that was logged last."""
    record = next(record for record in reversed(rank) if _measured(record, source, kind))
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
    lines: list[tuple[float, Spectrum]],
    random: tuple[str, Spectrum] | None,
) -> Panel:
    logged = len(lines)
    # From the first to the last, evenly spread.
    shown = {round(i) for i in np.linspace(0, logged - 1, min(logged, _MAX_LINES))}
    lines = [lines[i] for i in sorted(shown)]
    first, last = lines[0][0], lines[-1][0]

    def plot(axes: Axes) -> None:
        scale = Normalize(first, max(last, first + 1))
        for step, values in lines:
            _plot_spectrum(axes, values, color=SEQUENCE(scale(step)), linewidth=1.2)
        if random is not None:
            name, values = random
            _plot_spectrum(axes, values, color=BASELINE, linestyle="--", label=name)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        plain_axis(axes, log=True)
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_xlabel("index of the singular value")
        axes.set_ylabel("normalised singular value")
        if len(lines) > 1:
            bar = axes.figure.colorbar(
                ScalarMappable(scale, SEQUENCE), ax=axes, label="step", pad=0.02, aspect=30,
                ticks=whole_numbers(),
            )  # fmt: skip
            bar.outline.set_visible(False)

    steps = f"from step {first:g} to {last:g}" if len(lines) > 1 else f"step {first:g}"
    return panel(
        f"Singular values, {source}, {word}",
        f"{len(lines)} of {logged} logged steps, a line each, from blue (first) to orange (last); "
        "a flatter line means that more dimensions are in use, and the dashed one is what random "
        "vectors of the final shape give.",
        f"Singular values of the {source} embeddings, {word}, on a logarithmic axis, "
        f"{len(lines)} lines, {steps}, beside random vectors.",
        plot,
        height=3.1,
    )


def _plot_spectrum(axes: Axes, values: Spectrum, **style: Any) -> None:
    index = np.arange(1, len(values) + 1)
    positive = values > 0
    axes.plot(index[positive], values[positive], **style)
