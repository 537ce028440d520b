"""The three criteria side by side on the toy recipe, at equal steps and at equal wall time.

    python -m benchmarks.criteria OUT [--seeds 0 1 2] [--steps 800] [--jobs 2]

Equal wall time: `moco_atc` and `atc` get as many steps as fit into the training time of
`moco_atc_atm` with the same seed. A run that is finished in OUT is not run again. Every run has one
thread, so that `--jobs` of them side by side take the time of one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from atr_moco_plugin.evaluation import Table

CRITERIA = ("moco_atc_atm", "moco_atc", "atc")
ROUND_TO = 50


def train(out: Path, criterion: str, seed: int, steps: int) -> dict[str, Any]:
    """Run the recipe unless its result is there; returns the test figures and the train time."""
    result = out / "retrieval.json"
    if not result.exists():
        # The shorthand drops the recipe's options, which `atc` does not have.
        name = "criterion=atc" if criterion == "atc" else f"criterion.name={criterion}"
        options = [name, f"common.seed={seed}", f"regime.num_steps={steps}"]
        command = [sys.executable, "-m", "atr_moco_plugin.recipes.toy", str(out), "--no-rich"]
        log = out.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            subprocess.run(
                [*command, "--config", *options],
                check=True,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
    reports = [json.loads(line) for line in (out / "metrics/train.jsonl").read_text().splitlines()]
    seconds = sum(r["Data Time"] + r["Compute Time"] for r in reports)
    return {**json.loads(result.read_text())["splits"]["test"], "seconds": seconds, "steps": steps}


def equal_wall_steps(own: dict[str, Any], reference: dict[str, Any]) -> int:
    """Steps that take as long as the reference run did, to the nearest ``ROUND_TO``."""
    steps = own["steps"] * reference["seconds"] / own["seconds"]
    return max(ROUND_TO, round(steps / ROUND_TO) * ROUND_TO)


def row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """Mean and standard deviation over the seeds."""

    def figure(kind: str, key: str, digits: int = 1) -> str:
        values = [run[kind][key] for run in runs if kind in run]
        if not values:
            return "-"
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"

    seconds = statistics.mean(run["seconds"] for run in runs)
    steps = statistics.mean(run["steps"] for run in runs)
    return [
        name,
        f"{steps:.0f}",
        f"{seconds:.0f}",
        figure("dual", "r_sum"),
        figure("reranked", "r_sum"),
        figure("reranked_blip", "r_sum"),
        figure("dual", "a2t_r1"),
        figure("dual", "t2a_r1"),
        f"{statistics.mean(r['rank']['sources']['audio']['centered']['rankme'] for r in runs):.1f}",
        f"{statistics.mean(r['rank']['sources']['text']['centered']['rankme'] for r in runs):.1f}",
    ]


HEADER = [
    "criterion", "steps", "train s", "R-sum", "re-ranked", "re-ranked as BLIP", "a2t R@1",
    "t2a R@1", "RankMe audio", "RankMe text",
]  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()

    seeds = args.seeds
    with ThreadPoolExecutor(args.jobs) as pool:

        def submit(name: str, seed: int, steps: int, suffix: str = "") -> Future[dict[str, Any]]:
            return pool.submit(train, args.out / f"{name}_{seed}{suffix}", name, seed, steps)

        equal = {
            (name, seed): submit(name, seed, args.steps) for name in CRITERIA for seed in seeds
        }
        equal = {key: future.result() for key, future in equal.items()}
        longer = {}
        for name in CRITERIA[1:]:
            for seed in seeds:
                steps = equal_wall_steps(equal[name, seed], equal[CRITERIA[0], seed])
                longer[name, seed] = submit(name, seed, steps, "_wall")
        longer = {key: future.result() for key, future in longer.items()}

    for key, run in longer.items():
        # At the rate of the first group, in case the machine was busier or idler meanwhile.
        run["seconds"] = equal[key]["seconds"] / args.steps * run["steps"]
    rows = [row(name, [equal[name, seed] for seed in seeds]) for name in CRITERIA]
    rows += [
        row(f"{name}, equal wall time", [longer[name, seed] for seed in seeds])
        for name in CRITERIA[1:]
    ]
    chance = equal[CRITERIA[0], seeds[0]]["chance"]
    figures = [f"{chance[key]:.1f}" for key in ("r_sum", "a2t_r1", "t2a_r1")]
    rows.append(["chance", "", "", figures[0], "", "", figures[1], figures[2], "", ""])
    print(Table(HEADER, rows).markdown())


if __name__ == "__main__":
    main()
