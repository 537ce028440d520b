"""Run what is missing, and print what is there. ``--help`` has the options."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from atr_moco_plugin.io.atomic import write_atomically
from atr_moco_plugin.model.architectures import ARCHITECTURES
from benchmarks.negatives import figures, plan, predictors, tables
from benchmarks.negatives.data import DATA
from benchmarks.negatives.prices import Price, Workshop, count_memory, measure
from benchmarks.negatives.rows import RESULTS, finite, is_stale, rate_file, row_file
from benchmarks.negatives.running import Bench, make
from benchmarks.negatives.variants import VARIANTS, criterion_options, why_not_there
from benchmarks.negatives.workers import Workers

MEMORY = "memory.json"
Prices = dict[tuple[str, int], dict[str, Price]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, or print what is there.

    Returns:
        1 where a run failed, else 0.
    """
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    rows = row_file(args.results)
    if args.stale:
        for row in filter(is_stale, rows.all()):
            print(*(row[name] for name in ("data", "variant", "batch", "seed")), sep="\t")
        return 0
    if args.predictors:
        print(predictors.report(rows.all()))
        return 0
    if args.memory:
        _count(args)
        return 0
    if args.figures is not None:
        figures.draw(rows.all(), args.figures)
        return 0
    if not args.table:
        status = _run(args)
        rows = row_file(args.results)
    else:
        status = 0
    print(tables.report(rows.all(), _read(args.results / MEMORY)))
    return status


def _run(args: argparse.Namespace) -> int:
    roots = {"scenes": args.scenes, "esc50": args.esc50}
    roots = {name: root.resolve() for name, root in roots.items() if root is not None}
    data = [x for x in args.data or DATA if DATA[x].recipe in {*roots, "toy"}]
    variants = _there(args.variants or list(VARIANTS))
    runs = plan.planned(data, variants, args.batches, args.seeds)
    bench = Bench(
        args.out, row_file(args.results), rate_file(args.results), {}, roots, args.options,
        json.loads(args.overrides), args.scale,
    )  # fmt: skip
    _check_own_rows(bench, args.results)
    renewed = _renew(bench, runs) if args.renew else []
    runs = bench.to_make(runs)
    bench.prices = _prices(args, bench, runs, renewed)
    say(f"{len(runs)} runs are to be made.")
    workers = Workers(runs, lambda run: make(bench, run), say)
    workers.work(args.jobs)
    for run, reason in workers.failed.items():
        say(f"FAILED {run.name}: {reason}")
    return int(bool(workers.failed))


def _check_own_rows(bench: Bench, results: Path) -> None:
    """Keep rows of a try apart from those of the plan and of other tries.

    Raises:
        SystemExit: the folder of results has others.
    """
    if bench.tried and results.resolve() == RESULTS.resolve():
        sys.exit("--scale, --options and --overrides make a try: give it --results FOLDER.")
    if any(row.get("tried", {}) != bench.tried for row in bench.rows.all()):
        sys.exit(
            f"{results} has rows of runs with other --scale, --options or --overrides: give "
            "--results another folder."
        )


def _count(args: argparse.Namespace) -> None:
    """Count the memory of a step, where the file of results lacks it."""
    file = args.results / MEMORY
    for name in _there(args.variants or list(VARIANTS)):
        if VARIANTS[name].teacher is not None:
            continue  # it reads rows that the first stage left on the disk
        for batch in args.batches:
            saved = _read(file)
            if str(batch) not in saved.setdefault(name, {}):
                options = criterion_options(VARIANTS[name], momentum=0.99)
                saved[name][str(batch)] = finite(count_memory(VARIANTS[name], options, batch))
                write_atomically(file, json.dumps(saved, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _renew(bench: Bench, runs: Sequence[plan.Run]) -> list[plan.Run]:
    """Forget stale rows, and return their runs."""
    renewed = []
    for run in runs:
        row = bench.file(run).find(**run.values)
        if row is not None and is_stale(row):
            shutil.rmtree(bench.out / run.name, ignore_errors=True)
            bench.file(run).forget(row)
            renewed.append(run)
    return renewed


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def _there(names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        reason = why_not_there(VARIANTS[name], momentum=0.99)
        if reason is None:
            found.append(name)
        else:
            say(f"{name}: not there, left out ({reason.partition(';')[0]})")
    return found


def _prices(
    args: argparse.Namespace,
    bench: Bench,
    runs: Sequence[plan.Run],
    renewed: Sequence[plan.Run],
) -> Prices:
    """Prices of all variants that are run, measured where the file of results has none and where
    the code is other than that of before."""
    file = args.results / "prices.json"
    saved = _read(file)
    for run in renewed:
        if run.variant != plan.REFERENCE:  # whose time is the unit
            saved.get(run.data, {}).get(str(run.batch), {}).pop(run.variant, None)
    wanted: dict[tuple[str, int], list[str]] = {}
    for run in runs:
        wanted.setdefault((run.data, run.batch), [plan.REFERENCE]).append(run.variant)
    for (data, batch), names in wanted.items():
        known = saved.setdefault(data, {}).setdefault(str(batch), {})
        missing = [x for x in dict.fromkeys(names) if x not in known]
        if not missing:
            continue
        say(f"Prices of a step on {data}, batch {batch}: {', '.join(missing)}.")
        measured = _measured(args, bench, data, batch, [plan.REFERENCE, *missing])
        # In units of the first reference, so that prices of another day are comparable.
        first = known.get(plan.REFERENCE, measured[plan.REFERENCE].record())["seconds"]
        scale = first / measured[plan.REFERENCE].seconds
        for name in missing:
            known[name] = finite(measured[name].scaled(scale).record())
        write_atomically(file, json.dumps(saved, indent=2) + "\n")
    return {
        (data, int(batch)): {name: Price(**x) for name, x in found.items()}
        for data, batches in saved.items()
        for batch, found in batches.items()
    }


def _measured(
    args: argparse.Namespace, bench: Bench, data: str, batch: int, names: Sequence[str]
) -> dict[str, Price]:
    own = DATA[data]
    variants = [VARIANTS[name] for name in dict.fromkeys(names)]
    workshop = Workshop(
        ARCHITECTURES[own.arch](), bench.dataset(data), own.max_seconds, own.tokenizer,
        own.max_tokens, own.freeze,
    )  # fmt: skip
    options = [
        (variant, criterion_options(variant, own.settings[variant.pairs(batch)].momentum))
        for variant in variants
    ]
    return measure(workshop, options, batch, args.rounds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.negatives", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path(), help="folder of the runs")
    parser.add_argument("--scenes", type=Path, help="labelled recordings, for the recipe of scenes")
    parser.add_argument("--esc50", type=Path, help="ESC-50, for its recipe")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of rows and prices")
    parser.add_argument("--data", nargs="+", choices=DATA, help="all whose folder is given")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME", help="all")
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all steps, for a try")
    parser.add_argument("--rounds", type=int, default=40, help="in which a step is measured")
    parser.add_argument("--renew", action="store_true", help="make stale rows anew")
    parser.add_argument("--options", nargs="*", default=[], help="more options of the recipes")
    parser.add_argument("--overrides", default="{}", help="more options of data sets, as JSON")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--table", action="store_true", help="run nothing, print the tables")
    shown.add_argument("--predictors", action="store_true", help="what predicts R-sum on test")
    shown.add_argument("--figures", type=Path, metavar="FOLDER", help="draw R-sum against time")
    shown.add_argument(
        "--memory", action="store_true", help="count that of a step, ten seconds each"
    )
    shown.add_argument("--stale", action="store_true", help="rows that other code has made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
