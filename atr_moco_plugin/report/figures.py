"""How the figures of the reports look, and how one gets into a page.

matplotlib draws a figure, which goes into the page as SVG: sharp on every screen, some kilobytes,
no second file. A figure is small, so that its text is still readable at the 340 pixels of a phone;
a question that needs more room gets several figures side by side. Text, axes and grid take their
colours from the page, which has a dark mode; the colours of lines stand out on both grounds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Color = str | tuple[float, ...]

STYLE = Path(__file__).with_name("figures.mplstyle")
"""Settings of matplotlib for all figures, for ``matplotlib.rc_context``."""

INK = "#1a1b1c"
"""Text and axes in :data:`STYLE`; becomes ``var(--ink)`` of the page."""

GRID = "#d9dadb"
"""Grid lines in :data:`STYLE`; becomes ``var(--grid)`` of the page."""

BASELINE = "#808182"
"""A reference for a measurement: chance, random vectors."""

AUDIO, TEXT = "#3b7ddd", "#e0662b"
"""The two modalities, wherever they are two lines in one figure."""

MODALITY_COLORS = {"audio": AUDIO, "text": TEXT}

CYCLE = (AUDIO, TEXT, "#2f9e62", "#a855b5", "#b08400", "#d6456b", "#4aa3b5", "#7d7f8c")
"""Lines without a meaning of their own; most colour-blind readers can tell them apart."""

SEQUENCE = LinearSegmentedColormap.from_list("sequence", ["#4468dd", "#b8458f", "#f0902a"])
"""From first to last: training steps, queue sizes."""

WIDTH = 4.0
"""Inches; where a phone has 320 pixels for a figure, its text is 10 pixels high."""


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
        title: see :class:`Panel`. It also sets the figure's inner ids apart from those of other
            figures, so no two figures of a page may share it.
        aid: see :class:`Panel`.
        alt: the figure in words, for readers who do not see it.
        plot: draws into the axes it gets.
        height: in inches, of a width of :data:`WIDTH`.
    """
    with matplotlib.rc_context({"svg.hashsalt": title}, STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        plot(figure.subplots())
        return Panel(title, aid, _inline(figure, alt))


def sequence_colors(count: int) -> list[Color]:
    """Colours of ``count`` lines in an order, from the first to the last of :data:`SEQUENCE`."""
    return [SEQUENCE(i / max(count - 1, 1)) for i in range(count)]


def legend_above(axes: Axes, columns: int = 3) -> None:
    """A legend over the axes, where it covers no line; none for one label or for very many."""
    if 1 < len(axes.get_legend_handles_labels()[1]) <= len(CYCLE) + 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2,
            handlelength=1.3, columnspacing=1.0, handletextpad=0.5,
        )  # fmt: skip


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def plain_axis(axes: Axes, *, log: bool = False) -> None:
    """Plain numbers at the ticks of the y axis, without a factor above it; ``log`` scales it."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if log:
        axes.set_yscale("log")
        # Labels between the decades only where there would be none, in less than a decade.
        low, high = axes.yaxis.get_view_interval()
        if low > 0 and high / low < 10:
            axes.yaxis.set_minor_formatter(plain)
        else:
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.yaxis.set_major_formatter(plain)


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
    _, _, after = text.partition('viewBox="')
    box = after.partition('"')[0]
    body = after.partition(">")[2]
    for pattern, by in (
        (r"<metadata>.*?</metadata>|<!--.*?-->", ""),
        # It would hold for the whole page; the page's own style says the same.
        (r"<defs>\s*<style.*?</style>\s*</defs>", ""),
        # Names of groups and images, the same in every figure and used by none.
        (r'<g id="[^"]*"/>', ""),
        (r'<g id="[^"]*">', "<g>"),
        (r'(<image [^>]*?) id="[^"]*"', r"\1"),
    ):
        body = re.sub(pattern, by, body, flags=re.DOTALL)
    body = re.sub(r'style="font(?:-size)?: *([\d.]+)px[^"]*?(;[^"]*)?"', _font, body)
    body = re.sub(r'\sd="[^"]*"', _rounded, body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = body.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}">{body}'


def _rounded(path: re.Match[str]) -> str:
    """Two digits are a fraction of a pixel."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace(" \n", " ")


def _font(style: re.Match[str]) -> str:
    """Keep size and alignment of a text; its family is the page's."""
    kept = [part for part in style[0][len('style="') : -1].split(";") if "font" not in part]
    return f'style="font-size: {style[1]}px{"".join(";" + part for part in kept)}"'
