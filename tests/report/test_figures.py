"""Figures as markup of a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes

from atr_moco_plugin.report.figures import GRID, INK, legend_above, panel, plain_axis


def draw(axes: Axes) -> None:
    axes.plot([1, 2, 3], [1, 100, 10], label="<script>alert(1)</script> $x$ & more")
    axes.plot([1, 2, 3], [1, 2, 3], label="second")
    axes.imshow([[1, 2], [3, 4]], extent=(1, 3, 1, 100), aspect="auto")
    plain_axis(axes, log=True)
    legend_above(axes)


def test_a_figure_is_one_element_without_links_size_and_metadata() -> None:
    svg = panel("Title", "Aid.", 'An "alt" <text>', draw).svg
    assert svg.startswith('<svg viewBox="0 0 ') and svg.rstrip().endswith("</svg>")
    assert 'aria-label="An &quot;alt&quot; &lt;text&gt;"' in svg.partition(">")[0] + ">"
    for absent in ("http", "<?xml", "<!DOCTYPE", "<metadata", "<!--", "<style", "font-family"):
        assert absent not in svg
    # Well-formed once the one prefix that HTML knows by itself is declared.
    root = ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)|xlink:href=\"#([^\"]+)\"", svg)
    assert used and {a or b for a, b in used} <= set(ids)


def test_texts_are_escaped_and_are_no_formulas() -> None:
    svg = panel("Title", "Aid.", "alt", draw).svg
    assert "<script" not in svg
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x$ &amp; more" in svg


def test_ticks_are_plain_numbers() -> None:
    svg = panel("Title", "Aid.", "alt", draw).svg
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"1", "10", "100"} <= set(labels) and not any("mathdefault" in text for text in labels)


def test_colours_of_the_page_and_alignment_are_kept() -> None:
    svg = panel("Title", "Aid.", "alt", draw).svg
    assert INK not in svg and GRID not in svg
    assert "var(--ink)" in svg and "var(--grid)" in svg
    assert re.search(r'<text style="font-size: 9px[^"]*text-anchor: middle', svg)


def test_the_same_figure_twice_is_equal_and_two_titles_share_no_id() -> None:
    first, again, other = (panel(name, "", "", draw).svg for name in ("a", "a", "b"))
    assert first == again
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
