"""The page of a run, made of the files in its folder alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.report.curves import recall_panels, training_panels
from atr_moco_plugin.report.examples import EXAMPLES_FILE, Examples
from atr_moco_plugin.report.figures import Panel
from atr_moco_plugin.report.html import render
from atr_moco_plugin.report.run_folder import RunFiles, number, read_run
from atr_moco_plugin.report.similarity import similarity_panel
from atr_moco_plugin.report.spectra import measure_panels, spectrum_panels
from atr_moco_plugin.report.tables import Table, rank_table, retrieval_table

_TEMPLATE = Path(__file__).with_name("run.html.j2")


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        aid: how to read it; may be empty.
        tables: shown first.
        panels: then the figures.
        notes: sentences on what is missing and why.
    """

    title: str
    aid: str = ""
    tables: list[Table] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_report(run_folder: Path) -> Path:
    """Write ``report/index.html`` of a run.

    Args:
        run_folder: the run's output folder.

    Returns:
        The page.

    Raises:
        ReportError: when the folder is not that of a run.
    """
    run = read_run(run_folder)
    page = run_folder / "report" / "index.html"
    write_atomically(page, render(_TEMPLATE, **context(run)))
    return page


def context(run: RunFiles) -> dict[str, Any]:
    """What the template is filled with."""
    examples, note = _examples(run)
    similarities = Section("Similarities of a sample", notes=[note] if note else [])
    if examples is not None and (figure := similarity_panel(examples.matrix)) is not None:
        similarities.panels.append(figure)
        similarities.aid = (
            f"{len(examples.matrix.rows)} of the {examples.clips:,} clips of the split "
            f"{examples.split}, drawn at random, with one caption each; clips of one class stand "
            "side by side."
        )
    return {
        "title": f"{_criterion(run)} on {_dataset(run)}",
        "facts": _facts(run),
        "problems": list(run.problems.values()),
        "sections": [_results(run), _training(run), _recalls(run), *_ranks(run), similarities],
        "examples": examples,
        "config": [f"{key}={value}" for key, value in run.config.items()],
    }


def _criterion(run: RunFiles) -> str:
    named = run.config.get("criterion.name") or run.config.get("criterion")
    return str(run.retrieval.get("criterion") or named or "unknown criterion")


def _dataset(run: RunFiles) -> str:
    names = (run.config.get(key) for key in ("dataset.name", "dataset.family"))
    return next((name for name in names if name and name != "null"), "unknown data set")


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    facts = [("Criterion", _criterion(run)), ("Data set", _dataset(run))]
    seed = run.retrieval.get("seed", run.config.get("common.seed"))
    facts.append(("Seed", "not recorded" if seed is None else str(seed)))
    if "checkpoint" in run.retrieval:
        score = number(run.retrieval.get("valid_score"))
        shown = "" if math.isnan(score) else f", validation R-sum {score:.1f}"
        step = _best_step(run)
        name = run.retrieval["checkpoint"] if step is None else f"step {step:,}"
        facts.append(("Best checkpoint", f"{name}{shown}"))
    if run.train:
        steps = f"{number(run.train[-1]['Step']):,.0f}"
        planned = run.config.get("regime.num_steps", "null")
        facts.append(("Steps", steps if planned in ("null", "") else f"{steps} of {planned}"))
        seconds = number(run.train[-1].get("Total Time"))
        if seconds == seconds:
            facts.append(("Training time", _duration(seconds)))
    for split, result in _splits(run).items():
        clips, captions = number(result.get("clips")), number(result.get("captions"))
        if clips == clips and captions == captions:
            bad = number(result.get("unreadable"))
            less = f"; {bad:,.0f} clips that cannot be decoded are left out" if bad > 0 else ""
            size = f"{clips:,.0f} clips, {captions:,.0f} captions{less}"
            facts.append((f"Split {split}", size))
    return facts


def _best_step(run: RunFiles) -> int | None:
    step = str(run.retrieval.get("checkpoint", "")).rpartition("step_")[2]
    return int(step) if step.isdecimal() else None


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _splits(run: RunFiles) -> dict[str, dict[str, Any]]:
    splits = run.retrieval.get("splits")
    if not isinstance(splits, dict):
        return {}
    return {name: result for name, result in splits.items() if isinstance(result, dict)}


def _results(run: RunFiles) -> Section:
    section = Section("Retrieval")
    failed = run.retrieval.get("failed")
    for split, reason in failed.items() if isinstance(failed, dict) else ():
        section.notes.append(f"No figures on {split}: {reason}")
    for split, result in _splits(run).items():
        section.tables.append(retrieval_table(split, result))
        if isinstance(result.get("rank"), dict):
            section.tables.append(rank_table(split, result["rank"]))
    if section.tables and not any("reranked" in result for result in _splits(run).values()):
        section.notes.append(
            "Nothing was re-ranked: either the criterion has no matching loss, so that there is no "
            "trained head, or `evaluation.rerank_k` is 0."
        )
    if section.tables:
        section.aid = (
            "R@k is the percentage of queries with a right answer among the first k, MedR the "
            "median rank of the first right answer (lower is better), mAP10 the mean average "
            "precision of the first ten; rows marked (dup) count captions with the same text as "
            "one, and chance is what random scores give."
        )
    else:
        section.notes.append(
            "There are no retrieval figures: retrieval.json is written when training is done and "
            "its best checkpoint was evaluated."
        )
    return section


def _training(run: RunFiles) -> Section:
    section = Section("Training", panels=training_panels(run.train))
    if not run.train:
        section.notes.append(
            "There are no training curves: metrics/train.jsonl is written at the first report, "
            "`regime.publish_metrics_every_n_steps` steps into the run."
        )
        return section
    missing = [
        (key, why)
        for key, why in (
            ("ATM Loss", "matching loss"),
            ("Alpha", "soft targets of a momentum model"),
            ("Queue Fill", "queues"),
        )
        if not any(key in record for record in run.train)
    ]
    if missing:
        names = " and no ".join(why for _, why in missing)
        section.notes.append(f"The criterion {_criterion(run)} has no {names}.")
    return section


def _recalls(run: RunFiles) -> Section:
    split = run.config.get("dataset.valid_split", "valid")
    chance = _splits(run).get(split, {}).get("chance")
    section = Section(
        "Validation",
        panels=recall_panels(
            run.valid,
            chance if isinstance(chance, dict) else {},
            _best_step(run),
        ),
    )
    if not run.valid:
        section.notes.append(
            "There are no recall curves: metrics/valid.jsonl is written at the first validation, "
            "`regime.validate_every_n_steps` steps into the run."
        )
    elif not chance:
        section.notes.append(
            "Chance is not drawn, since it is in retrieval.json, which is not there yet."
        )
    return section


def _ranks(run: RunFiles) -> list[Section]:
    spectra = Section("Singular values of the queues", panels=spectrum_panels(run.rank))
    measures = Section("Rank of the queues", panels=measure_panels(run.rank))
    if not run.rank:
        queues = any("Queue Fill" in record for record in run.train)
        why = (
            f"the criterion {_criterion(run)} has no queues to measure"
            if run.train and not queues
            else "the run has not logged one yet, or its rank hook is switched off (`hooks`)"
        )
        spectra.notes.append(f"There are no spectra and rank curves (rank.jsonl): {why}.")
        return [spectra]
    return [spectra, measures]


def _examples(run: RunFiles) -> tuple[Examples | None, str | None]:
    if not run.examples:
        return None, (
            "There is no similarity matrix and there are no examples "
            f"({EXAMPLES_FILE}): they are collected when the best checkpoint is evaluated."
        )
    try:
        return Examples.from_dict(run.examples), None
    except ValueError as ex:
        return None, f"{EXAMPLES_FILE} cannot be shown: {ex}"
