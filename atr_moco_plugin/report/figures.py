"""How the figures of the reports look, and how one gets into a page.

A figure is drawn by matplotlib and inlined as SVG: sharp on every screen, some kilobytes, one file.
It is small, so that its text is still readable when a phone shows it at 340 pixels; what needs more
room is several figures side by side. Text, axes and grid take their colours from the page, which
has a dark mode; lines have colours that stand out on both grounds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK = "#1a1b1c"
"""Text and axes; becomes ``var(--ink)`` of the page."""

GRID = "#d9dadb"
"""Grid lines; becomes ``var(--grid)`` of the page."""

BASELINE = "#808182"
"""What a measurement stands beside: chance, random vectors."""

AUDIO, TEXT = "#3b7ddd", "#e0662b"
"""The two modalities, wherever they are two lines in one figure."""

CYCLE = (AUDIO, TEXT, "#2f9e62", "#a855b5", "#b08400", "#d6456b", "#4aa3b5", "#7d7f8c")
"""Lines without a meaning of their own; told apart by most colour-blind readers."""

SEQUENCE = LinearSegmentedColormap.from_list("sequence", ["#4468dd", "#b8458f", "#f0902a"])
"""From first to last: training steps, queue sizes."""

WIDTH = 4.0
"""Inches; where a phone has 320 pixels for a figure, its text is 10 pixels high."""

STYLE = {
    "svg.fonttype": "none",
    # A caption is no formula, even with two dollar signs.
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
}
"""Settings of matplotlib for all figures, for ``matplotlib.rc_context``."""


@dataclass(frozen=True)
class Panel:
    """A figure with its words.

    Attributes:
        title: what is shown.
        aid: one sentence on how to read it.
        svg: the figure, safe markup for an HTML page.
    """

    title: str
    aid: str
    svg: str


def panel(
    title: str, aid: str, alt: str, plot: Callable[[Axes], object], *, height: float = 2.7
) -> Panel:
    """Draw one figure.

    Args:
        title: see :class:`Panel`; also tells the figure's inner ids from those of other figures,
            so no two figures of a page may share it.
        aid: see :class:`Panel`.
        alt: what a reader hears who does not see the figure.
        plot: draws into the axes it gets.
        height: in inches, of a width of :data:`WIDTH`.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        plot(figure.subplots())
        return Panel(title, aid, _inline(figure, alt))


def legend_above(axes: Axes, columns: int = 3) -> None:
    """A legend over the axes, where it covers no line; none for fewer than two labels."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2,
            handlelength=1.3, columnspacing=1.0, handletextpad=0.5,
        )  # fmt: skip


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def step_axis(axes: Axes) -> None:
    """Label the x axis as training steps, which are whole."""
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(whole_numbers())


def plain_axis(axes: Axes) -> None:
    """Numbers in full at the ticks of a linear y axis, without a factor above it in the legend."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain_log_axis(axes: Axes, which: str) -> None:
    """Make the ``"x"`` or ``"y"`` axis logarithmic, with plain numbers at its ticks."""
    if which == "x":
        axes.set_xscale("log")
        axis = axes.xaxis
    else:
        axes.set_yscale("log")
        axis = axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # A range of less than a decade has no other labels than the minor ones.
    low, high = axis.get_view_interval()
    if low > 0 and high / low < 10:
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _inline(figure: Figure, alt: str) -> str:
    """The figure as an ``<svg>`` element without fixed size, links, comments and metadata."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    for pattern, by in (
        (r"<metadata>.*?</metadata>|<!--.*?-->", ""),
        # It would hold for the whole page; the page's own style says the same.
        (r"<defs>\s*<style.*?</style>\s*</defs>", ""),
        # Names of groups and images, the same in every figure and used by none.
        (r'<g id="[^"]*"/>', ""),
        (r'<g id="[^"]*">', "<g>"),
        (r'(<image [^>]*?) id="[^"]*"', r"\1"),
        (r'style="font(?:-size)?: *([\d.]+)px[^"]*?(;[^"]*)?"', _font),
        (r'\sd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace(" \n", " ")),
        (r"\s*\n\s*", "\n"),
    ):
        body = re.sub(pattern, by, body, flags=re.DOTALL)
    body = body.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">{body}'


def _font(style: re.Match[str]) -> str:
    """Size and alignment of a text are the figure's, the family is the page's."""
    kept = [part for part in style[0][len('style="') : -1].split(";") if "font" not in part]
    return f'style="font-size: {style[1]}px{"".join(";" + part for part in kept)}"'
