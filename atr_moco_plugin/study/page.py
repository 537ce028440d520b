"""The study as files: JSON, Markdown, figures and a page to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.html import render
from atr_moco_plugin.study.figures import panels, save_plot, study_plots
from atr_moco_plugin.study.findings import Study
from atr_moco_plugin.study.tables import notes, variant_tables, variant_title
from atr_moco_plugin.study.verdict import RULE, verdict

_TEMPLATES = Path(__file__).parent


def write_study(study: Study, title: str, folder: Path, failed: Sequence[str] = ()) -> None:
    """Write ``rank_study.json``, ``rank_study.md``, ``figures/`` and ``index.html``.

    Args:
        study: what was found.
        title: heading of the Markdown file and of the page.
        folder: where to.
        failed: names of runs that are missing.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    result = {"title": title, "failed": list(failed), "rule": RULE, **study.to_dict()}
    variants = []
    for variant, of_variant in zip(study.variants, result["variants"], strict=True):
        heading, of_variant["ground"] = verdict(study, variant)
        plots = list(study_plots(study, variant))
        for plot in plots:
            save_plot(plot, figures)
        variants.append(
            {
                "name": variant_title(variant) if len(study.variants) > 1 else "",
                "heading": heading,
                "ground": of_variant["ground"],
                "tables": list(variant_tables(study, variant)),
                "figures": [(plot, panels(plot)) for plot in plots],
            }
        )
    words = {"title": title, "notes": notes(study, failed), "variants": variants}
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / "rank_study.json", text)
    write_atomically(folder / "rank_study.md", render(_TEMPLATES / "study.md.j2", **words))
    write_atomically(folder / "index.html", render(_TEMPLATES / "study.html.j2", **words))
