"""Corrections of the cosines on trained runs: R@1 with and without each of them.

    python -m benchmarks.corrections OUT toy=RUN,RUN,RUN esc50=RUN,RUN [--split test]

Each run is evaluated by the evaluation recipe with every correction: a bank of the training split,
parameters chosen on the validation split. An evaluation that is finished in OUT is not made again.
A gain is that over the plain cosines of the same run. Of one run it has its 95 % interval over
clips, of several the mean and the standard deviation over runs. Inductive and transductive
corrections are in tables of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from atr_moco_plugin.evaluation import Table
from atr_moco_plugin.evaluation.rescoring import INDUCTIVE, TITLES, TRANSDUCTIVE

Figures = dict[str, Any]
DIRECTIONS = {"a2t": "audio → text", "t2a": "text → audio"}


def evaluate(out: Path, run: Path, split: str) -> Figures:
    """The figures of one run, evaluated unless they are there."""
    if not (out / "retrieval.json").exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        names = ",".join(TITLES)
        options = [f"run={run}", f"split={split}", "rerank_k=[]", f"correct=[{names}]"]
        command = [sys.executable, "-m", "atr_moco_plugin.recipes.evaluate", str(out), "--no-rich"]
        with out.with_suffix(".log").open("w") as log:
            subprocess.run([*command, "--config", *options], check=True, stdout=log, stderr=log)
    result: Figures = json.loads((out / "retrieval.json").read_text())
    found: Figures = result["splits"][split]
    return found


def table(name: str, kind: str, runs: list[Figures]) -> Table:
    """R@1, mAP@10 and hubness of every correction of a kind, over runs of one data set."""
    titles = {key: TITLES[key] for key in (INDUCTIVE if kind == "inductive" else TRANSDUCTIVE)}
    header = ["", *(f"{figure} {way}" for way in DIRECTIONS.values()
                    for figure in ("R@1", "gain of R@1", "gain of mAP@10", "skew"))]  # fmt: skip
    rows = []
    if kind == "inductive":
        plain = ["none"]
        for way in DIRECTIONS:
            plain += [_mean([run["dual"][f"{way}_r1"] for run in runs]), "", ""]
            plain += [f"{statistics.mean(run['hubness'][way]['skewness'] for run in runs):.2f}"]
        rows.append(plain)
    for key, title in titles.items():
        row = [title]
        for way in DIRECTIONS:
            corrections = [run["corrections"] for run in runs]
            row.append(_mean([found[kind][key][f"{way}_r1"] for found in corrections]))
            for figure in ("r1", "map10"):
                row.append(_gain([found["gains"][key][f"{way}_{figure}"] for found in corrections]))
            skews = [found["hubness"][key][way]["skewness"] for found in corrections]
            row.append(f"{statistics.mean(skews):.2f}")
        rows.append(row)
    of = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return Table(header, rows, caption=f"{name}, {of}, {kind}")


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}"


def _gain(gains: list[list[float]]) -> str:
    if len(gains) == 1:
        gain, low, high = gains[0]
        return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"
    values = [gain for gain, *_ in gains]
    return f"{statistics.mean(values):+.1f} ± {statistics.stdev(values):.1f}"


def main() -> None:
    """Evaluate what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("groups", nargs="+", help="NAME=RUN,RUN: runs of one data set")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    for group in args.groups:
        name, _, paths = group.partition("=")
        runs = [
            evaluate(args.out / f"{name}_{i}", Path(path), args.split)
            for i, path in enumerate(paths.split(","))
        ]
        for kind in ("inductive", "transductive"):
            found = table(name, kind, runs)
            print(f"\n{found.caption}\n\n{found.markdown()}")


if __name__ == "__main__":
    main()
