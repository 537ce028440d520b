"""The plots of a study: panels for the page, and files for documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atr_moco_plugin.rank.random_vectors import random_spectra
from atr_moco_plugin.report.figures import (
    AUDIO,
    BASELINE,
    SEQUENCE,
    STYLE,
    TEXT,
    Panel,
    legend_above,
    panel,
    plain_log_axis,
)
from atr_moco_plugin.study.results import MODALITIES
from atr_moco_plugin.study.summary import Seeds, SizeSummary, Study, Variant
from atr_moco_plugin.study.table import MEASURE_TITLES, size_label, variant_title

_COLORS = {"audio": AUDIO, "text": TEXT}
_LINES = ("-", "--", ":", "-.")

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Plot:
    """One question and the axes that answer it.

    Attributes:
        name: of its files.
        title: what is shown.
        aid: how to read it.
        parts: title of each axes to what draws into them; the legend is the same for all.
        columns: axes side by side in the files.
        legend_title: what the lines of the legend are; may be empty.
    """

    name: str
    title: str
    aid: str
    parts: dict[str, Draw]
    columns: int = 2
    legend_title: str = ""


def study_plots(study: Study, variant: Variant) -> list[Plot]:
    """All plots of one variant."""
    return list(_plots(study, variant))


def panels(plot: Plot) -> list[Panel]:
    """The plot for the page, one figure for each of its axes."""

    def with_legend(draw: Draw) -> Draw:
        def drawn(axes: Axes) -> None:
            draw(axes)
            legend_above(axes, 2 if max(map(len, axes.get_legend_handles_labels()[1])) > 12 else 4)

        return drawn

    drawn = []
    for part, draw in plot.parts.items():
        title = f"{plot.title}, {part}"
        # The whole title, since that of a panel is the only one on its page.
        figure = panel(title, plot.legend_title, title, with_legend(draw), height=3.2)
        drawn.append(replace(figure, title=part))
    return drawn


def save_plot(plot: Plot, folder: Path) -> None:
    """Write NAME.svg and NAME.png with all axes of the plot and one legend below them.

    Args:
        plot: what to draw.
        folder: where to; it is there.
    """
    rows = -(-len(plot.parts) // plot.columns)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": plot.name}):
        figure = Figure(figsize=(4.4 * plot.columns, 2.8 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, plot.columns, squeeze=False).flat
        for axes, (part, draw) in zip(grid, plot.parts.items(), strict=True):
            draw(axes)
            if len(plot.parts) > 1:
                axes.set_title(part)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center",
            ncols=min(len(labels), 5 if plot.columns > 1 else 3), title=plot.legend_title or None,
        )  # fmt: skip
        path = folder / f"{plot.name}.svg"
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white")


def _plots(study: Study, variant: Variant) -> Iterator[Plot]:
    suffix = words = ""
    if len(study.variants) > 1:
        suffix = f"_m{variant.momentum:g}_p{variant.positives}"
        words = f" ({variant_title(variant).lower()})"
    queues = [size for size in variant.sizes if size.queue]
    if queues:
        yield Plot(
            f"rank_of_queue{suffix}",
            f"Rank of the queues at the last step{words}",
            "Every measure rises with the rows even for random unit vectors (dashed); where a line "
            "levels off earlier, longer queues repeat directions. Bars: standard deviation over "
            "the seeds.",
            {
                title: lambda axes, key=key: _queue_rank(axes, study, queues, key)
                for key, title in MEASURE_TITLES.items()
            },
        )
    yield Plot(
        f"rank_of_held_out{suffix}",
        f"Rank of the embeddings of {study.valid_split}{words}",
        "The same items for every queue size, so these can be compared directly; dashed are as "
        "many random unit vectors.",
        {
            title: lambda axes, key=key: _held_out_rank(axes, study, variant.sizes, key)
            for key, title in MEASURE_TITLES.items()
        },
    )
    yield Plot(
        f"r_sum{suffix}",
        f"Retrieval by queue size{words}",
        f"R-sum of the dual encoder, of 600; chosen by {study.valid_split}. Dots are seeds.",
        {"R-sum": lambda axes: _r_sum(axes, study, variant.sizes)},
        columns=1,
    )
    yield Plot(
        f"rank_and_r_sum{suffix}",
        f"Rank and retrieval on {study.valid_split}{words}",
        "Each small dot is a run, each large one the mean of a queue size.",
        {
            f"{name} embeddings": lambda axes, name=name: _rank_and_r_sum(
                axes, study, variant.sizes, name
            )
            for name in MODALITIES
        },
        legend_title="queue size",
    )
    if queues:
        yield Plot(
            f"spectra{suffix}",
            f"Singular values of the queues at the last step{words}",
            "Centred rows, divided by the largest singular value; mean over the seeds.",
            {
                f"{name} queue": lambda axes, name=name: _spectra(axes, queues, name)
                for name in MODALITIES
            },
            legend_title="queue size",
        )
        yield Plot(
            f"rank_over_steps{suffix}",
            f"Rank of the queues during training{words}",
            "RankMe of the centred rows that are filled at each step; mean over the seeds.",
            {
                f"{name} queue": lambda axes, name=name: _rank_over_steps(axes, queues, name)
                for name in MODALITIES
            },
            legend_title="queue size",
        )


def _queue_rank(axes: Axes, study: Study, sizes: Sequence[SizeSummary], measure: str) -> None:
    for name in MODALITIES:
        figures = [size.queue[name].measures[measure] for size in sizes]
        _with_spread(axes, figures, _COLORS[name], name)
    random = [size.queue["audio"].random[measure] for size in sizes]
    axes.plot(random, "--", color=BASELINE, label="random vectors")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _size_axis(axes, study, sizes)


def _held_out_rank(axes: Axes, study: Study, sizes: Sequence[SizeSummary], measure: str) -> None:
    for name in MODALITIES:
        ranks = [size.held_out[name] for size in sizes]
        _with_spread(axes, [r.measures[measure] for r in ranks], _COLORS[name], name)
        # Clips and captions differ in number, and so in what random vectors have.
        axes.plot(
            [r.random[measure] for r in ranks],
            "--", color=_COLORS[name], linewidth=1, label=f"random, {ranks[0].rows:,} rows",
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    _size_axis(axes, study, sizes)


def _with_spread(
    axes: Axes, figures: Sequence[Seeds], color: str, label: str, line: str = "-"
) -> None:
    x, means = range(len(figures)), [figure.mean for figure in figures]
    # Two calls, since a legend lists error bars after all lines.
    axes.plot(x, means, f"o{line}", color=color, markersize=4, label=label)
    axes.errorbar(x, means, [f.std for f in figures], fmt="none", ecolor=color, capsize=3)


def _r_sum(axes: Axes, study: Study, sizes: Sequence[SizeSummary]) -> None:
    for split, line in zip(sizes[0].r_sum, _LINES, strict=False):
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


def _rank_and_r_sum(axes: Axes, study: Study, sizes: Sequence[SizeSummary], modality: str) -> None:
    for size, color in zip(sizes, _sequence(len(sizes)), strict=True):
        rank = size.held_out[modality].measures["rankme_centered"]
        r_sum = size.r_sum[study.valid_split]
        axes.plot(rank.values, r_sum.values, ".", color=color, alpha=0.6, markersize=5)
        axes.plot(rank.mean, r_sum.mean, "o", color=color, markersize=8, label=size_label(size))
    axes.set_xlabel("RankMe of the centred embeddings")
    axes.set_ylabel("R-sum")


def _spectra(axes: Axes, sizes: Sequence[SizeSummary], modality: str) -> None:
    for size, color in zip(sizes, _sequence(len(sizes)), strict=True):
        # The last of as many centred rows as dimensions is 0.
        spectrum = [value for value in size.queue[modality].spectrum if value > 0]
        axes.plot(range(1, len(spectrum) + 1), spectrum, color=color, label=size_label(size))
    largest = sizes[-1].queue[modality]
    random = random_spectra(largest.rows, largest.dim, True)[0]
    axes.plot(
        range(1, len(random) + 1), random / random[0],
        "--", color=BASELINE, label=f"random, {largest.rows:,} rows",
    )  # fmt: skip
    axes.set_ylim(1e-3, 1.3)
    plain_log_axis(axes, "y")
    axes.set_xlabel("number of the singular value")
    axes.set_ylabel("singular value / largest")


def _rank_over_steps(axes: Axes, sizes: Sequence[SizeSummary], modality: str) -> None:
    for size, color in zip(sizes, _sequence(len(sizes)), strict=True):
        steps, ranks = zip(*size.history[modality], strict=True)
        axes.plot(steps, ranks, color=color, label=size_label(size))
    axes.set_xlabel("training step")
    axes.set_ylabel("RankMe, centred")
    axes.set_ylim(bottom=0)


def _size_axis(axes: Axes, study: Study, sizes: Sequence[SizeSummary]) -> None:
    """Sizes side by side at equal distances, which has room for 0; overlong ones are shaded."""
    labels = [size_label(size) for size in sizes]
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(sizes)), labels, **(slanted if sum(map(len, labels)) > 25 else {}))
    axes.set_xlabel("queue size")
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    fitting = sum(not size.exceeds_training for size in sizes)
    if fitting < len(sizes):
        axes.axvspan(
            fitting - 0.5, len(sizes) - 0.6, color=BASELINE, alpha=0.15, linewidth=0,
            label=f"over {study.train_pairs:,} training pairs",
        )  # fmt: skip


def _sequence(count: int) -> list[tuple[float, ...]]:
    return [SEQUENCE(i / max(count - 1, 1)) for i in range(count)]
