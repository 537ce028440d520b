"""The plots of a study: panels for the page, and files for documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atr_moco_plugin.rank.random_vectors import random_spectra
from atr_moco_plugin.report.figures import (
    AUDIO,
    BASELINE,
    MODALITY_COLORS,
    STYLE,
    Panel,
    legend_above,
    panel,
    plain_axis,
    sequence_colors,
)
from atr_moco_plugin.study.findings import Seeds, SizeSummary, Study, Variant
from atr_moco_plugin.study.results import MODALITIES
from atr_moco_plugin.study.tables import MEASURE_TITLES, size_label, variant_title

_WORDS: dict[str, dict[str, str]] = yaml.safe_load(
    Path(__file__).with_name("plots.yaml").read_text("utf-8")
)
_SPLIT_LINES = ("-", "--", ":", "-.")

Sizes = Sequence[SizeSummary]


@dataclass(frozen=True)
class Plot:
    """One question and the axes that answer it.

    Attributes:
        name: of its files, without the ending.
        title: what is shown.
        aid: how to read it.
        parts: title of each axes to the function that draws into them; all have the same legend.
        legend_title: may be empty.
    """

    name: str
    title: str
    aid: str
    parts: Mapping[str, Callable[[Axes], None]]
    legend_title: str = ""


def study_plots(study: Study, variant: Variant) -> Iterator[Plot]:
    """All plots of one variant."""
    queues = [size for size in variant.sizes if size.queue]
    embeddings = {f"{name} embeddings": name for name in MODALITIES}
    queue_names = {f"{name} queue": name for name in MODALITIES}
    measures = {title: name for name, title in MEASURE_TITLES.items()}
    suffix = words = ""
    if len(study.variants) > 1:
        suffix = f"_m{variant.momentum:g}_p{variant.positives}"
        suffix += "_konline" if variant.keys == "online" else ""
        words = f" ({variant_title(variant).lower()})"
    for name, draw, sizes, parts in (
        ("rank_of_queue", _queue_rank, queues, measures),
        ("rank_of_held_out", _held_out_rank, variant.sizes, measures),
        ("r_sum", _r_sum, variant.sizes, {"R-sum": ""}),
        ("rank_and_r_sum", _rank_and_r_sum, variant.sizes, embeddings),
        ("spectra", _spectra, queues, queue_names),
        ("rank_over_steps", _rank_over_steps, queues, queue_names),
    ):
        if sizes:
            text = {
                key: value.format(split=study.valid_split) for key, value in _WORDS[name].items()
            }
            yield Plot(
                f"{name}{suffix}",
                f"{text['title']}{words}",
                text["aid"],
                {title: partial(draw, study, sizes, part) for title, part in parts.items()},
                text.get("legend", ""),
            )


def panels(plot: Plot) -> list[Panel]:
    """The plot for the page, one figure for each of its axes."""

    def with_legend(draw: Callable[[Axes], None], axes: Axes) -> None:
        draw(axes)
        legend_above(axes, 2 if max(map(len, axes.get_legend_handles_labels()[1])) > 12 else 4)

    drawn = []
    for part, draw in plot.parts.items():
        # A figure's title has to be the only one of its kind on the page.
        title = f"{plot.title}, {part}"
        figure = panel(title, plot.legend_title, title, partial(with_legend, draw), height=3.2)
        drawn.append(replace(figure, title=part))
    return drawn


def save_plot(plot: Plot, folder: Path) -> None:
    """Write NAME.svg and NAME.png with all axes of the plot and one legend below them.

    Args:
        plot: what to draw.
        folder: where to; it exists.
    """
    columns = min(len(plot.parts), 2)
    rows = -(-len(plot.parts) // columns)
    with matplotlib.rc_context({"svg.hashsalt": plot.name}, STYLE):
        figure = Figure(figsize=(4.4 * columns, 2.8 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (part, draw) in zip(grid, plot.parts.items(), strict=True):
            draw(axes)
            if len(plot.parts) > 1:
                axes.set_title(part)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center",
            ncols=min(len(labels), 5 if columns > 1 else 3), title=plot.legend_title or None,
        )  # fmt: skip
        path = folder / f"{plot.name}.svg"
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white")


def _queue_rank(study: Study, sizes: Sizes, measure: str, axes: Axes) -> None:
    for name, color in MODALITY_COLORS.items():
        figures = [size.queue[name].measures[measure] for size in sizes]
        _with_spread(axes, figures, color, name)
    random = [size.queue["audio"].random[measure] for size in sizes]
    axes.plot(random, "--", color=BASELINE, label="random vectors")
    axes.set_yscale("log", base=2)
    plain_axis(axes)
    _size_axis(axes, study, sizes)


def _held_out_rank(study: Study, sizes: Sizes, measure: str, axes: Axes) -> None:
    for name, color in MODALITY_COLORS.items():
        ranks = [size.held_out[name] for size in sizes]
        _with_spread(axes, [r.measures[measure] for r in ranks], color, name)
        # As many random vectors as clips, and as captions.
        axes.plot(
            [r.random[measure] for r in ranks],
            "--", color=color, linewidth=1, label=f"random, {ranks[0].rows:,} rows",
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    _size_axis(axes, study, sizes)


def _r_sum(study: Study, sizes: Sizes, part: str, axes: Axes) -> None:
    for split, line in zip(sizes[0].r_sum, _SPLIT_LINES, strict=False):
        color = AUDIO if split == study.valid_split else BASELINE
        figures = [size.r_sum[split] for size in sizes]
        _with_spread(axes, figures, color, split, line)
        for index, figure in enumerate(figures):
            axes.plot(
                [index] * len(figure.values), figure.values, ".",
                color=color, alpha=0.5, markersize=4,
            )  # fmt: skip
    _size_axis(axes, study, sizes)
    axes.set_ylabel("R-sum")


def _rank_and_r_sum(study: Study, sizes: Sizes, modality: str, axes: Axes) -> None:
    for size, color in zip(sizes, sequence_colors(len(sizes)), strict=True):
        rank = size.held_out[modality].measures["rankme_centered"]
        r_sum = size.r_sum[study.valid_split]
        axes.plot(rank.values, r_sum.values, ".", color=color, alpha=0.6, markersize=5)
        axes.plot(rank.mean, r_sum.mean, "o", color=color, markersize=8, label=size_label(size))
    axes.set_xlabel("RankMe of the centred embeddings")
    axes.set_ylabel("R-sum")


def _spectra(study: Study, sizes: Sizes, modality: str, axes: Axes) -> None:
    for size, color in zip(sizes, sequence_colors(len(sizes)), strict=True):
        # Of as many centred rows as dimensions, the last singular value is 0.
        spectrum = [value for value in size.queue[modality].spectrum if value > 0]
        axes.plot(range(1, len(spectrum) + 1), spectrum, color=color, label=size_label(size))
    largest = sizes[-1].queue[modality]
    random = random_spectra(largest.rows, largest.dim, True)[0]
    axes.plot(
        range(1, len(random) + 1), random / random[0],
        "--", color=BASELINE, label=f"random, {largest.rows:,} rows",
    )  # fmt: skip
    axes.set_ylim(1e-3, 1.3)
    plain_axis(axes, log=True)
    axes.set_xlabel("number of the singular value")
    axes.set_ylabel("singular value / largest")


def _rank_over_steps(study: Study, sizes: Sizes, modality: str, axes: Axes) -> None:
    for size, color in zip(sizes, sequence_colors(len(sizes)), strict=True):
        steps, ranks = zip(*size.history[modality], strict=True)
        axes.plot(steps, ranks, color=color, label=size_label(size))
    axes.set_xlabel("training step")
    axes.set_ylabel("RankMe, centred")
    axes.set_ylim(bottom=0)


def _with_spread(
    axes: Axes, figures: Sequence[Seeds], color: str, label: str, line: str = "-"
) -> None:
    x, means = range(len(figures)), [figure.mean for figure in figures]
    # Two calls, since a legend lists error bars after all lines.
    axes.plot(x, means, f"o{line}", color=color, markersize=4, label=label)
    axes.errorbar(x, means, [f.std for f in figures], fmt="none", ecolor=color, capsize=3)


def _size_axis(axes: Axes, study: Study, sizes: Sizes) -> None:
    """Sizes side by side at equal distances, which has room for 0; overlong ones are shaded."""
    labels = [size_label(size) for size in sizes]
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(sizes)), labels, **(slanted if sum(map(len, labels)) > 25 else {}))
    axes.set_xlabel("queue size")
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    fitting = sum(not size.exceeds_training for size in sizes)
    if fitting < len(sizes):
        axes.axvspan(
            fitting - 0.5, len(sizes) - 0.6, color=BASELINE, alpha=0.15, linewidth=0,
            label=f"over {study.train_pairs:,} training pairs",
        )  # fmt: skip
