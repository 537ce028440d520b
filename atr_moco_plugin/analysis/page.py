"""The page of an analysis: one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atr_moco_plugin.analysis.tables import between_tables, retrieval_tables, within_tables
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.packages import page_packages

_TEMPLATE = Path(__file__).with_name("analysis.html.j2")


def write_page(path: Path, result: Mapping[str, Any], title: str) -> None:
    """Write the page.

    Args:
        path: where to; its folder must be there.
        result: of :func:`~atr_moco_plugin.analysis.report.analyse`, or the same read from JSON.
        title: heading of the page.

    Raises:
        InputError: when the packages of the extra ``report`` are not installed.
    """
    write_atomically(path, page(result, title))


def page(result: Mapping[str, Any], title: str) -> str:
    """The page as text; see :func:`write_page`."""
    with page_packages():
        from atr_moco_plugin.analysis.figures import shared_panels, spectrum_panels
        from atr_moco_plugin.report.html import render
    facts = {
        name: f"{side['rows']:,} rows of {side['dim']:,} numbers"
        for name, side in result["sides"].items()
    }
    if "pairs" in result:
        pairs = result["pairs"]
        how = "row by row" if pairs["by"] == "row" else f"in {pairs['groups']:,} groups"
        facts["pairs"] = f"{pairs['pairs']:,}, {how}"
    return render(
        _TEMPLATE,
        title=title,
        facts=facts,
        notes=result["notes"],
        seed=result["seed"],
        within=within_tables(result),
        between=between_tables(result),
        retrieval=retrieval_tables(result),
        spectra=spectrum_panels(result),
        shared=shared_panels(result),
    )
