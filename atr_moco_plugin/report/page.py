"""The page of a run, made of the files in its folder alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import counted
from atr_moco_plugin.evaluation.correction_tables import correction_tables, hubness_table
from atr_moco_plugin.evaluation.metrics import higher_is_better
from atr_moco_plugin.evaluation.result_tables import cell, rank_table, retrieval_table
from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.io.stdout import duration
from atr_moco_plugin.report.curves import curve_panels
from atr_moco_plugin.report.drift import drift_panels
from atr_moco_plugin.report.examples import EXAMPLES_FILE, Examples
from atr_moco_plugin.report.html import render
from atr_moco_plugin.report.run_folder import ReportError, RunFiles, number, read_run
from atr_moco_plugin.report.similarity import similarity_panel
from atr_moco_plugin.report.spectra import measure_panels, spectrum_panels
from atr_moco_plugin.report.titles import TITLES

_TEMPLATE = Path(__file__).with_name("run.html.j2")


def build_report(run_folder: Path) -> Path:
    """Write ``report/index.html`` of a run.

    Args:
        run_folder: the run's output folder.

    Returns:
        The page.

    Raises:
        ReportError: when the folder is not the output of a run, or the page cannot be written.
    """
    run = read_run(run_folder)
    page = run_folder / "report" / "index.html"
    text = render(_TEMPLATE, **context(run))
    try:
        write_atomically(page, text)
    except OSError as ex:
        raise ReportError(
            f"{page} cannot be written ({ex.strerror or ex}): its folder is to be one that you may "
            "write to, on a disk with room."
        ) from ex
    return page


def context(run: RunFiles) -> dict[str, Any]:
    """Values of the variables in ``run.html.j2``."""
    splits = _dicts(run.retrieval.get("splits"))
    chance = splits.get(run.config.get("dataset.valid_split", "valid"), {}).get("chance")
    tables = []
    for split, result in splits.items():
        tables.append(retrieval_table(result, split, ranges=True))
        if isinstance(result.get("rank"), dict):
            tables.append(rank_table(result["rank"], split))
        hubs = hubness_table(result, split)
        tables += [hubs] if hubs is not None else []
        tables += correction_tables(result, split, ranges=True)
    failed = run.retrieval.get("failed")
    examples, problem = _examples(run)
    return {
        "run": run,
        "criterion": _criterion(run),
        "dataset": _dataset(run),
        "facts": list(_facts(run, splits)),
        "failed": failed if isinstance(failed, dict) else {},
        "reranked": any("reranked" in result for result in splits.values()),
        "tables": tables,
        "logged": {key for record in run.train for key in record},
        "chance": chance,
        "training": curve_panels("training", run.train),
        "validation": curve_panels(
            "validation", run.valid, chance if isinstance(chance, dict) else None, _best_step(run)
        ),
        "spectra": spectrum_panels(run.rank),
        "measures": [*measure_panels(run.rank), *drift_panels(run.rank)],
        "examples": examples,
        "examples_problem": problem,
        "examples_file": EXAMPLES_FILE,
        "similarity": None if examples is None else similarity_panel(examples.matrix),
    }


def _criterion(run: RunFiles) -> str:
    named = run.config.get("criterion.name") or run.config.get("criterion")
    return str(run.retrieval.get("criterion") or named or "unknown criterion")


def _dataset(run: RunFiles) -> str:
    names = (run.config.get(key) for key in ("dataset.name", "dataset.family"))
    return next((name for name in names if name and name != "null"), "unknown data set")


def _facts(run: RunFiles, splits: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Names and values for the head of the page."""
    yield "Criterion", _criterion(run)
    yield "Data set", _dataset(run)
    yield "Seed", str(run.retrieval.get("seed", run.config.get("common.seed", "not recorded")))
    if "checkpoint" in run.retrieval:
        score, step = number(run.retrieval.get("valid_score")), _best_step(run)
        name = run.retrieval["checkpoint"] if step is None else f"step {step:,}"
        metric = run.config.get("regime.score_metric")
        shown = ""
        if metric is not None and not math.isnan(score):
            # fairseq2 has the negative of a metric that is better when lower.
            value = score if higher_is_better(metric) else abs(score)
            shown = f", validation {TITLES.get(metric, metric)} {value:.1f}"
        # An evaluation of a run may have taken any of its checkpoints.
        yield "Checkpoint" if "run" in run.retrieval else "Best checkpoint", f"{name}{shown}"
    if run.train:
        planned = run.config.get("regime.num_steps", "null")
        of_planned = "" if planned in ("null", "") else f" of {planned}"
        yield "Steps", cell(run.train[-1]["Step"], 0) + of_planned
        seconds = number(run.train[-1].get("Total Time"))
        if not math.isnan(seconds):
            yield "Training time", duration(seconds)
    for split, result in splits.items():
        clips, captions, bad = (number(result.get(k)) for k in ("clips", "captions", "unreadable"))
        if not math.isnan(clips + captions):
            less = ""
            if bad > 0:
                are = "is" if bad == 1 else "are"
                less = f"; {counted(int(bad), 'clip')} that cannot be decoded {are} left out"
            size = f"{counted(int(clips), 'clip')}, {counted(int(captions), 'caption')}"
            yield f"Split {split}", f"{size}{less}"


def _best_step(run: RunFiles) -> int | None:
    step = re.search(r"(?:step_|checkpoint-)([0-9]+)$", str(run.retrieval.get("checkpoint", "")))
    return None if step is None else int(step[1])


def _dicts(value: object) -> dict[str, dict[str, Any]]:
    """The values of a mapping that are mappings."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(item, dict)}


def _examples(run: RunFiles) -> tuple[Examples | None, str | None]:
    """The examples, or why those in the file cannot be shown."""
    if not run.examples:
        return None, None
    try:
        examples = Examples.from_dict(run.examples)
    except ValueError as ex:
        return None, str(ex)
    evaluated = run.retrieval.get("checkpoint", examples.checkpoint)
    if examples.checkpoint not in (None, evaluated):
        return None, (
            f"it is of {examples.checkpoint}, and the figures are of {evaluated}; "
            "start the run's command again with `report` on, which evaluates anew."
        )
    return examples, None
