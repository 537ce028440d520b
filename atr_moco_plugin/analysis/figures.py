"""The figures of an analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from atr_moco_plugin.evaluation.result_tables import MATRICES
from atr_moco_plugin.rank.random_vectors import random_spectra
from atr_moco_plugin.rank.spectrum import normalize
from atr_moco_plugin.report.figures import (
    AUDIO,
    BASELINE,
    CYCLE,
    TEXT,
    Panel,
    legend_above,
    panel,
    plain_axis,
    whole_numbers,
)

Record = Mapping[str, Any]

_COLORS = (AUDIO, TEXT)
_SHARED = CYCLE[2]


def spectrum_panels(result: Record) -> list[Panel]:
    """Singular values of each side, raw and centred, beside random vectors.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    return [_spectra(result, kind, word) for kind, word in MATRICES.items()]


def shared_panels(result: Record) -> list[Panel]:
    """What both sides share: axes, retrieval along them, angles, cosines; those that are there.

    Args:
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`.
    """
    makers: dict[str, Callable[[Record, Sequence[str]], list[Panel]]] = {
        "cross_covariance": _cross_covariance,
        "retrieval_by_axes": _by_axes,
        "principal_angles": _angles,
        "retrieval": _cosines,
    }
    names = list(result["sides"])
    return [
        found
        for key, make in makers.items()
        if result.get(key)
        for found in make(result[key], names)
    ]


def _spectra(result: Record, kind: str, word: str) -> Panel:
    sources = result["rank"]["sources"]
    shapes = {(source["rows"], source["dim"]) for source in sources.values()}

    def plot(axes: Axes) -> None:
        for (name, source), color in zip(sources.items(), _COLORS, strict=False):
            _line(axes, source[kind]["spectrum"], color=color, label=_short(name))
        for rows, dim in sorted(shapes):
            draws = random_spectra(rows, dim, kind == "centered")
            mean = torch.stack([normalize(values, "max") for values in draws]).mean(dim=0)
            label = f"random, {rows:,} × {dim:,}"
            _line(axes, mean.tolist(), color=BASELINE, linestyle="--", label=label)
        _rank_axes(axes, "singular value / largest", "index of the singular value")
        legend_above(axes, columns=2)

    removed = "without the mean row" if kind == "centered" else "as they are, with the mean row"
    return panel(
        f"Singular values, {word}",
        f"Of the embeddings {removed}, over the largest one: a flatter line means that more "
        "dimensions are in use, and random unit vectors of the same shape are dashed.",
        f"Singular values of {' and '.join(sources)} on a logarithmic axis beside random vectors.",
        plot,
    )


def _cross_covariance(found: Record, names: Sequence[str]) -> list[Panel]:
    def plot(axes: Axes) -> None:
        _line(axes, found["spectrum"], color=_SHARED, label="pairs")
        _line(
            axes,
            found["shuffled"]["spectrum"],
            color=BASELINE,
            linestyle="--",
            label="shuffled pairs",
        )
        _rank_axes(axes, "singular value / largest", "axis")
        legend_above(axes)

    above, shuffles = found["above_shuffled"], found["shuffled"]["shuffles"]
    return [
        panel(
            "Shared axes",
            f"Singular values of the cross-covariance of {found['pairs']:,} pairs; {above:,} are "
            f"above the largest of {shuffles} shuffles, which share nothing (dashed: their mean). "
            f"One in {shuffles + 1} unrelated data sets has one there.",
            f"Singular values of the cross-covariance of {' and '.join(names)} on a logarithmic "
            f"axis; {above} of {len(found['spectrum'])} are above those of shuffled pairs.",
            plot,
        )
    ]


def _by_axes(found: Record, names: Sequence[str]) -> list[Panel]:
    if not found["axes"]:
        return []
    counts = [int(count) for count in found["axes"]]
    first, second = map(_short, names)
    ways = {"a2t": f"{first} → {second}", "t2a": f"{second} → {first}"}

    def plot(axes: Axes) -> None:
        for (way, title), color in zip(ways.items(), _COLORS, strict=True):
            values = [figures[f"{way}_r1"] for figures in found["axes"].values()]
            axes.plot(counts, values, color=color, marker="o", markersize=3, label=title)
            ends = [of.get(f"{way}_r1") for of in found["intervals"]["axes"].values()]
            if all(ends):
                low, high = zip(*ends, strict=True)
                axes.fill_between(counts, low, high, color=color, alpha=0.2, linewidth=0)
            if found["cosine"] is not None:
                axes.axhline(found["cosine"][f"{way}_r1"], color=color, linestyle="--", lw=1)
        axes.axhline(found["chance"]["a2t_r1"], color=BASELINE, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("axes kept")
        axes.set_ylabel("R@1 (%)")
        legend_above(axes, columns=2)

    plain = "; dashed is the plain cosine" if found["cosine"] is not None else ""
    return [
        panel(
            "Retrieval by axes kept",
            f"R@1 of {found['pairs']:,} pairs along the first shared axes of {found['fitted_on']:,}"
            f" others, without the means; bands are 95 % intervals{plain}, dotted is chance.",
            f"R@1 by number of axes, from {counts[0]} to {counts[-1]}.",
            plot,
        )
    ]


def _angles(found: Record, names: Sequence[str]) -> list[Panel]:
    counts = [int(count) for count in found["overlap_by_axes"]]
    r, s = found["axes"]

    def angles(axes: Axes) -> None:
        _angle_line(axes, found["random_degrees"], color=BASELINE, linestyle="--", label="random")
        _angle_line(axes, found["degrees"], color=_SHARED, label="measured")
        axes.set_ylim(-2, 92)
        axes.set_yticks([0, 30, 60, 90])
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_xlabel("principal angle")
        axes.set_ylabel("degrees")
        legend_above(axes)

    def overlaps(axes: Axes) -> None:
        axes.plot(
            counts, list(found["overlap_by_axes"].values()), color=_SHARED, marker="o",
            markersize=3, label="measured",
        )  # fmt: skip
        random = [count / found["dim"] for count in counts]
        axes.plot(counts, random, color=BASELINE, linestyle="--", label="random subspaces")
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("principal axes of each side")
        axes.set_ylabel("overlap")
        legend_above(axes)

    return [
        panel(
            "Principal angles",
            f"Between the {r:,} axes of {names[0]} and the {s:,} of {names[1]} that hold "
            f"{100 * found['variance']:.0f} % of the variance; 0 is a shared direction, 90 one "
            "that the other side does not have.",
            f"Principal angles from {min(found['degrees']):.0f} to {max(found['degrees']):.0f} "
            "degrees beside those of random subspaces.",
            angles,
        ),
        panel(
            "Overlap of the principal axes",
            "Mean squared cosine of the angles between the first axes of both sides: 1 where they "
            "span the same space.",
            f"Overlap by number of axes, from {counts[0]} to {counts[-1]}, beside random ones.",
            overlaps,
        ),
    ]


def _cosines(found: Record, names: Sequence[str]) -> list[Panel]:
    histogram = found["histogram"]
    shown = [name for name in ("pairs", "others") if name in histogram]
    if not shown:
        return []
    edges = np.linspace(histogram["low"], histogram["high"], len(histogram[shown[0]]) + 1)

    def plot(axes: Axes) -> None:
        for name, color in (("pairs", _SHARED), ("others", BASELINE)):
            if name in histogram:
                axes.stairs(histogram[name], edges, color=color, fill=True, alpha=0.55, label=name)
        axes.set_xlabel("cosine")
        axes.set_ylabel("% of each")
        plain_axis(axes)
        legend_above(axes)

    means = ", ".join(f"{name} {histogram[f'{name}_mean']:.3f}" for name in shown)
    return [
        panel(
            "Cosines",
            f"Of {found['pairs']:,} pairs and of all other combinations of the same rows; the less "
            f"the two overlap, the better one retrieves (means: {means}).",
            f"Histograms of the cosines of {' and '.join(names)}; means: {means}.",
            plot,
        )
    ]


def _short(name: str) -> str:
    """A name that leaves room for the figure."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def _rank_axes(axes: Axes, y: str, x: str) -> None:
    plain_axis(axes, log=True)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    # Below that is rounding, which would leave no room for the rest.
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-6))


def _angle_line(axes: Axes, degrees: Sequence[float], **style: Any) -> None:
    axes.plot(range(1, len(degrees) + 1), degrees, **style)


def _line(axes: Axes, values: Sequence[float], **style: Any) -> None:
    y = np.array(values)
    x = np.arange(1, len(y) + 1)
    axes.plot(x[y > 0], y[y > 0], **style)
