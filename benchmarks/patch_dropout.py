"""What patch dropout gives in equal training time: the toy recipe and that of scenes, R-sum.

    python -m benchmarks.patch_dropout OUT [--scenes FOLDER] [--seeds 0 1 2 3 4] [--steps 400]
    python -m benchmarks.patch_dropout OUT --table

Seconds of a step are measured first, all ways in turns in one process, and kept in OUT. Each way
makes as many steps as take as long as ``--steps`` of the plain one, so that a busy machine does
not decide how far a run comes. A finished run is a line of ``benchmarks/patch_dropout.jsonl``: it
is not run again, and other seeds make as many steps. One that was stopped goes on in OUT.
``--table`` prints what is there. FOLDER has labelled recordings, as those of ESC-50.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.model import build_model
from atr_moco_plugin.model.architectures import ARCHITECTURES
from atr_moco_plugin.model.patch_dropout import PatchDropoutConfig
from benchmarks.step import fill, make_batch, one_step

WAYS = {
    "every token": None,
    "half in both towers": PatchDropoutConfig(time=0.35, bands=2),
    "half of the steps in both towers": PatchDropoutConfig(),
}
SECONDS = {"toy": 4.0, "scenes": 5.0}
BATCH = 32
ROUND_TO = 20
ROWS = Path(__file__).with_suffix(".jsonl")
"""One line a finished run: runs of many hours are made in several sittings."""


def rates(seconds: float, rounds: int, ways: Sequence[str]) -> dict[str, float]:
    """Seconds of a step of each way: the recipe's model, batch and queue, noise of one length.

    They are seconds of the processor, which a busy machine changes little, in one thread.
    """
    torch.manual_seed(0)
    batch = make_batch(BATCH, seconds, torch.device("cpu"))
    batch["text"]["input_ids"] %= 500
    steps = []
    for way in ways:
        config = ARCHITECTURES["toy"]()
        config.patch_dropout = WAYS[way]
        criterion = MocoAtc(build_model(config), MocoAtcConfig(queue_size=512)).train()
        fill(criterion, batch)
        optimizer = AdamW(criterion.parameters(), lr=1e-6, fused=True)
        steps.append(partial(one_step, criterion, optimizer, batch))
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for own, step in zip(times, steps, strict=True):
            start = time.process_time()
            step()
            if turn:  # the first allocates
                own.append(time.process_time() - start)
    return dict(zip(ways, map(statistics.median, times), strict=True))


def train(
    rows: Path, out: Path, recipe: str, way: str, seed: int, steps: int, options: Sequence[str]
) -> None:
    """Run a recipe, or the rest of one that was stopped, and add its figures to the rows."""
    if not (out / "retrieval.json").exists():
        _run(out, recipe, way, seed, steps, options)
    row = {"recipe": recipe, "way": way, "seed": seed, "steps": steps, **result(out)}
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _run(out: Path, recipe: str, way: str, seed: int, steps: int, options: Sequence[str]) -> None:
    every = max(1, steps // 4)
    options = [
        "criterion.name=moco_atc",
        # As the first rows had it, whatever the presets have by now.
        "criterion.config.temperature_min=0.001",
        f"common.seed={seed}",
        f"regime.num_steps={steps}",
        f"regime.validate_every_n_steps={every}",
        f"regime.checkpoint_every_n_steps={every}",
        f"regime.publish_metrics_every_n_steps={every}",
        "report=false",
        *options,
    ]
    if (dropout := WAYS[way]) is not None:
        key = "model.config_overrides.patch_dropout"
        options += [f"{key}.{name}={value}" for name, value in vars(dropout).items()]
    command = [sys.executable, "-m", f"atr_moco_plugin.recipes.{recipe}", str(out), "--no-rich"]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--config", *options], check=True, stdout=log, stderr=log, env=environment
        )


def result(out: Path) -> dict[str, float]:
    """Figures of a finished run on its test split, and the seconds of its steps."""
    lines = (out / "metrics/train.jsonl").read_text().splitlines()
    seconds = sum(r["Data Time"] + r["Compute Time"] for r in map(json.loads, lines))
    dual: dict[str, float] = json.loads((out / "retrieval.json").read_text())["splits"]["test"][
        "dual"
    ]
    names = ("r_sum", "a2t_r1", "t2a_r1")
    return {**{name: dual[name] for name in names}, "seconds": seconds}


def read_rows(path: Path = ROWS) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Recipe, way and seed of every finished run, with its figures."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["recipe"], row["way"], row["seed"]): row for row in map(json.loads, lines)}


def table(rows: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> Table:
    """Mean and standard deviation over the seeds that are there, and the difference of each seed to
    its plain run."""
    lines = []
    for recipe in SECONDS:
        for way in WAYS:
            runs = {seed: row for (*names, seed), row in rows.items() if names == [recipe, way]}
            pairs = [
                (row["r_sum"], rows[recipe, "every token", seed]["r_sum"])
                for seed, row in runs.items()
                if (recipe, "every token", seed) in rows
            ]
            lines.append(
                [
                    recipe,
                    way,
                    "/".join(map(str, sorted({row["steps"] for row in runs.values()}))),
                    str(len(runs)),
                    _spread([row["r_sum"] for row in runs.values()]),
                    _spread([a - b for a, b in pairs]) if way != "every token" else "-",
                    _spread([row["a2t_r1"] for row in runs.values()]),
                    _spread([row["t2a_r1"] for row in runs.values()]),
                ]
            )
    header = ["recipe", "audio tokens", "steps", "seeds", "R-sum", "against every token"]
    return Table([*header, "a2t R@1", "t2a R@1"], lines)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def _folder(out: Path, recipe: str, way: str, seed: int) -> Path:
    return out / recipe / f"{way.replace(',', '').replace(' ', '_')}_{seed}"


def _plan(out: Path, recipe: str, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and steps of each way, measured once."""
    file = out / f"{recipe}.json"
    plan: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    missing = [way for way in WAYS if way not in plan]
    if missing:
        ways = dict.fromkeys(["every token", *missing])
        measured = rates(SECONDS[recipe], rounds, list(ways))
        for way in missing:
            ratio = measured["every token"] / measured[way]
            rounded = max(ROUND_TO, round(steps * ratio / ROUND_TO) * ROUND_TO)
            plan[way] = {"step": measured[way], "steps": rounded}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(plan, indent=2))
    return plan


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=Path, help="labelled recordings, for the recipe of scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=400, help="of the plain run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30, help="in which a step is measured")
    parser.add_argument("--options", nargs="*", default=[], help="more options of the recipe")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the finished runs")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args(arguments)

    torch.set_num_threads(1)
    if not args.table:
        recipes = ["toy"] + (["scenes"] if args.scenes is not None else [])
        plan = {recipe: _plan(args.out, recipe, args.steps, args.rounds) for recipe in recipes}
        finished = read_rows(args.rows)
        with ThreadPoolExecutor(args.jobs) as pool:
            jobs = []
            # Seed after seed, so that a table of the first ones is whole.
            for seed, recipe, way in product(args.seeds, recipes, WAYS):
                if (recipe, way, seed) in finished:
                    continue
                options = list(args.options)
                if recipe == "scenes":
                    options.append(f"dataset.config_overrides.root={args.scenes}")
                folder = _folder(args.out, recipe, way, seed)
                before = {row["steps"] for key, row in finished.items() if key[:2] == (recipe, way)}
                steps = min(before, default=int(plan[recipe][way]["steps"]))
                run = (folder, recipe, way, seed, steps, options)
                jobs.append(pool.submit(train, args.rows, *run))
            for job in jobs:
                job.result()
    print(table(read_rows(args.rows)).markdown())


if __name__ == "__main__":
    main()
