"""The study as files: JSON, Markdown, figures and a page to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.html import render
from atr_moco_plugin.report.page import Section
from atr_moco_plugin.study.figures import panels, save_plot, study_plots
from atr_moco_plugin.study.summary import Study
from atr_moco_plugin.study.table import notes, study_markdown, variant_tables, variant_title
from atr_moco_plugin.study.verdict import RULE, verdict

_TEMPLATE = Path(__file__).with_name("study.html.j2")


def write_study(study: Study, title: str, folder: Path, failed: Sequence[str] = ()) -> None:
    """Write ``rank_study.json``, ``rank_study.md``, ``figures/`` and ``index.html``.

    Args:
        study: what was found.
        title: heading of table and page.
        folder: where to.
        failed: names of runs that are missing.
    """
    result = {"title": title, "failed": list(failed), "rule": RULE, **study.to_dict()}
    for variant, of_variant in zip(study.variants, result["variants"], strict=True):
        of_variant["ground"] = verdict(study, variant)[1]
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / "rank_study.json", text)
    write_atomically(folder / "rank_study.md", study_markdown(study, title, failed))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    variants = []
    for variant in study.variants:
        plots = study_plots(study, variant)
        for plot in plots:
            save_plot(plot, figures)
        heading, ground = verdict(study, variant)
        name = variant_title(variant) if len(study.variants) > 1 else ""
        tables = list(variant_tables(study, variant))
        sections = [Section(f"Tables ({name.lower()})" if name else "Tables", tables=tables)]
        sections += [Section(plot.title, plot.aid, panels=panels(plot)) for plot in plots]
        variants.append({"name": name, "heading": heading, "ground": ground, "sections": sections})
    page = render(_TEMPLATE, title=title, notes=notes(study, failed), variants=variants)
    write_atomically(folder / "index.html", page)
