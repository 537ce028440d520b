"""One run: the command that trains it, and the row that is made of it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.hosts.fairseq2.runs.folder import find_checkpoint
from atr_moco_plugin.io.atomic import write_atomically
from benchmarks.negatives import code, plan
from benchmarks.negatives.data import DATA
from benchmarks.negatives.held_out import evaluate
from benchmarks.negatives.plan import Run
from benchmarks.negatives.prices import Price, starts_late
from benchmarks.negatives.rows import Row, RowFile, finite
from benchmarks.negatives.variants import QUEUE_SIZE, VARIANTS, criterion_options

SECOND_STAGE = {"supervised_weight": 0.0}
"""Criterion options of a run whose teacher is another of its kind (Primus et al. 2024)."""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass
class Bench:
    """What all runs share.

    Attributes:
        out: folder of the runs.
        rows: finished runs.
        rates: finished runs of searches.
        prices: by data and batch, of each variant.
        roots: by recipe, where data are that are not made up.
        options: more options of the recipe, for all runs.
        overrides: more options of the data sets, for all runs.
        scale: factor of all steps, to try the bench out.
    """

    out: Path
    rows: RowFile
    rates: RowFile
    prices: Mapping[tuple[str, int], Mapping[str, Price]]
    roots: Mapping[str, Path]
    options: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    _datasets: dict[str, AudioTextDataset] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tried(self) -> dict[str, Any]:
        """What makes its runs others than those of the plan; empty where nothing does."""
        changes = {"scale": self.scale, "options": [*self.options], "overrides": self.overrides}
        return {name: x for name, x in changes.items() if x not in (1.0, [], {})}

    def file(self, run: Run) -> RowFile:
        """Where the row of a run is."""
        return self.rows if run.factor is None else self.rates

    def finished(self, run: Run) -> bool:
        """Whether a run has its row."""
        return self.file(run).find(**run.values) is not None

    def to_make(self, runs: Sequence[Run]) -> list[Run]:
        """Those that are not finished, and the teachers of these that have their row alone."""
        missing = [run for run in runs if not self.finished(run)]
        teachers = {run.teacher() for run in missing}
        lost = {x for x in teachers if x is not None and not _is_trained(self.out / x.name)}
        return [run for run in runs if run in missing or run in lost]

    def dataset(self, data: str) -> AudioTextDataset:
        """The data that runs are evaluated on, opened once."""
        with self._lock:
            if data not in self._datasets:
                root = self.roots.get(DATA[data].recipe)
                self._datasets[data] = DATA[data].open(root, self.overrides)
            return self._datasets[data]


def make(bench: Bench, run: Run) -> Row:
    """Train a run, or go on with it, evaluate it and write its row.

    Raises:
        subprocess.CalledProcessError: where the training fails.
    """
    folder = bench.out / run.name
    made = _plan(bench, run, folder)
    if not _is_trained(folder):
        _train(bench, run, made, folder)
    dataset = bench.dataset(run.data)
    found = evaluate(folder, dataset, DATA[run.data].rerank_k)
    price, start = Price(**made["price"]), found["start"]
    spent = price.spent(made["steps"], made["steps"] if start is None else start)
    if (teacher := run.teacher()) is not None and (first := bench.rows.find(**teacher.values)):
        spent += first["spent"]
    row = finite({
        **run.values,
        **made,
        "spent": spent,
        "valid": _quarters(folder / "metrics/valid.jsonl"),
        **found,
        "torch": torch.__version__,
        **({"tried": bench.tried} if bench.tried else {}),
    })  # fmt: skip
    bench.file(run).add(row)
    _clean(folder)
    return dict(row)


def _is_trained(folder: Path) -> bool:
    return (folder / "retrieval.json").exists()


def _plan(bench: Bench, run: Run, folder: Path) -> dict[str, Any]:
    """Steps and rate of a run, settled when it first begins."""
    file = folder / "plan.json"
    if file.exists():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    variant, data = VARIANTS[run.variant], DATA[run.data]
    pairs = variant.pairs(run.batch)
    options = criterion_options(variant, data.settings[pairs].momentum)
    prices = bench.prices[run.data, run.batch]
    price, share = prices[run.variant], plan.share(run) * bench.scale
    seconds = plan.budget(prices, run.data, run.batch, share)
    late = starts_late(variant, options)
    start = plan.expected_start(run, bench.rows, late)
    made = {
        "criterion": variant.criterion,
        "options": options,
        "pairs": pairs,
        "lr": plan.learning_rate(run, bench.rates),
        "steps": plan.steps(run, price, seconds, start),
        "expected_start": start if late else None,
        "budget": seconds,
        "price": price.record(),
        "code": code.digest(variant.kind),
        "commit": code.commit(),
    }
    write_atomically(file, json.dumps(made, indent=2) + "\n")
    return made


def recipe_options(bench: Bench, run: Run, made: Mapping[str, Any]) -> list[str]:
    """Options of the recipe: no report, and as few validations, checkpoints and lines of the log as
    the row needs."""
    data, variant = DATA[run.data], VARIANTS[run.variant]
    quarter = made["steps"] // 4
    criterion = dict(made["options"])
    first = []
    if (teacher := run.teacher()) is not None:
        path = str((bench.out / teacher.name).resolve())
        criterion |= {"teachers": [path], **SECOND_STAGE}
        first = [f"init={path}"]
    # Every option, as the recipe has its own for those that are left out.
    criterion = asdict(build_config(variant.kind.config_class, criterion, "criterion.config"))
    options = [
        *first,
        f"criterion.name={made['criterion']}",
        *(f"criterion.config.{x}={json.dumps(y)}" for x, y in criterion.items()),
        f"dataset.batch_size={made['pairs']}",
        f"optimizer.config.lr={made['lr']!r}",
        f"optimizer.config.head_lr_scale={variant.head_lr_scale}",
        f"common.seed={run.seed}",
        f"regime.num_steps={made['steps']}",
        f"regime.validate_every_n_steps={quarter}",
        f"regime.checkpoint_every_n_steps={quarter}",
        f"regime.publish_metrics_every_n_steps={quarter // 4}",
        f"hooks.rank.every={quarter}",
        # So the first age of the drift is that of the oldest row of a queue.
        f"hooks.rank.probe_every={QUEUE_SIZE // made['pairs']}",
        "report=false",
        # The row's own evaluation does both.
        "evaluation.rerank_k=0",
        "evaluation.test_split=null",
        *data.options,
        *data.data_options(bench.roots.get(data.recipe), bench.out / "cache", bench.overrides),
    ]
    if variant.chunks:
        options.append(f"trainer.grad_cache.chunk_size={run.batch}")
    return [*options, *bench.options]


def _train(bench: Bench, run: Run, made: Mapping[str, Any], folder: Path) -> None:
    recipe = f"atr_moco_plugin.recipes.{DATA[run.data].recipe}"
    options = recipe_options(bench, run, made)
    command = [sys.executable, "-m", recipe, str(folder), "--no-rich", "--config", *options]
    with (folder / "train.log").open("a") as log:
        subprocess.run(
            command, check=True, stdout=log, stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=_end_with_the_bench,
        )  # fmt: skip


def _end_with_the_bench() -> None:
    # Also where it is killed and can end nothing itself.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _quarters(file: Path) -> list[float]:
    """R-sum of each validation."""
    lines = [json.loads(x) for x in file.read_text(encoding="utf-8").splitlines()]
    by_step = {line["Step"]: line["R-sum"] for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def _clean(folder: Path) -> None:
    """Remove what nobody reads again; the best checkpoint's weights stay."""
    _, best = find_checkpoint(folder)
    for checkpoint in (folder / "checkpoints").glob("step_*"):
        if checkpoint != best:
            shutil.rmtree(checkpoint)
    for part in ("optimizer", "trainer", "data_reader"):
        shutil.rmtree(best / part, ignore_errors=True)
    for part in ("cache", "tb"):
        shutil.rmtree(folder / part, ignore_errors=True)
