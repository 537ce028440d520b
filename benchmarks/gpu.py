"""All that is to be measured on one GPU, in one call of at most eight minutes.

    python -m benchmarks.gpu OUT.json

The rows of ``python -m benchmarks``, a training step with compiled and with recomputed layers
beside the plain one, and a short training run of the toy recipe, which is then resumed from
half-way. What fails or finds no time left is reported in one line and the rest goes on. Nothing
comes from the network. fairseq2 needs its native package, or a stand-in for it on ``PYTHONPATH``;
without either the parts that use it are reported as failed. ``--device cpu --tiny`` does it all in
miniature.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.model import build_model, model_config
from benchmarks import harness
from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import Machine, Row
from benchmarks.step import TINY, fill, make_batch, one_step

BUDGET = 480.0
"""Seconds of the whole script."""

TRAINING_TIME = 150.0
"""Seconds that are kept for the training run."""

LAYER_OPTIONS = ("plain", "activation checkpointing", "compiled")
"""Ways of running the layers, of which the last may find no compiler."""

TINY_RUN = (
    "model.config_overrides.embed_dim=12",
    "model.config_overrides.audio.config.encoder_layers=1",
    "model.config_overrides.text.config.num_hidden_layers=1",
    "dataset.config_overrides.num_train=40",
    "dataset.config_overrides.num_valid=6",
    "dataset.config_overrides.num_test=6",
    "dataset.batch_size=8",
    "dataset.max_seconds=1.0",
    "evaluation.rerank_k=3",
)


class Parts:
    """Runs the parts of the script, each with what it says of itself or why it failed.

    Args:
        budget: seconds of them all.
    """

    def __init__(self, budget: float) -> None:
        self._end = time.monotonic() + budget
        self.done: list[dict[str, Any]] = []

    def run(self, name: str, work: Callable[[], Any], keep: float = 0.0) -> Any:
        """What ``work`` returns, or ``None`` where it failed or there was no time to begin.

        Args:
            name: of the part.
            work: does it.
            keep: seconds to leave for later parts.
        """
        start, result, problem = time.monotonic(), None, None
        if self.left - keep <= 0:
            problem = "no time left"
        else:
            try:
                result = work()
            except Exception as error:  # whatever it is, the other parts are worth having
                traceback.print_exc()
                lines = str(error).splitlines()
                problem = f"{type(error).__name__}: {lines[0] if lines else ''}"
        seconds = round(time.monotonic() - start, 1)
        self.done.append({"part": name, "seconds": seconds, "problem": problem})
        print(f"{seconds:6.1f} s  {name}{f': {problem}' if problem else ''}", flush=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return result

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._end - time.monotonic()


def layer_option(name: str, machine: Machine, tiny: bool) -> dict[str, float]:
    """Seconds and MiB of a training step with one of :data:`LAYER_OPTIONS`."""
    device, cuda = machine.device, machine.device.type == "cuda"
    b, seconds, queue_size = (4, 0.5, 16) if tiny else (32, 10.0, 65_536)
    batch = make_batch(b, seconds, device)
    torch.manual_seed(0)
    model = build_model(model_config(TINY if tiny else {})).to(device)
    criterion = (
        MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=queue_size)).to(device).train()
    )
    fill(criterion, batch)
    if name != "plain":  # those need fairseq2
        from atr_moco_plugin.hosts.fairseq2.training.layers import checkpoint_layers, compile_layers
    if name == "activation checkpointing":
        checkpoint_layers(criterion, every_nth_layer=1)
    elif name == "compiled":
        # Code is generated for a GPU alone: a CPU's compiler takes minutes.
        compile_layers(criterion, **({} if cuda else {"backend": "eager"}))
    optimizer = AdamW(criterion.parameters(), lr=1e-6, fused=True)
    step = partial(one_step, criterion, optimizer, batch)
    (taken,) = harness.fastest([step], device, rounds=5)
    return {"seconds": taken, "mib": harness.peak_mib(step, device)}


def train(folder: Path, device: torch.device, tiny: bool, timeout: float) -> dict[str, Any]:
    """Train by the toy recipe, take the last checkpoint away, and have it go on from half-way.

    Raises:
        RuntimeError: the recipe failed, or the loss did not fall.
        subprocess.TimeoutExpired: it took longer than ``timeout`` seconds.
    """
    steps = 4 if tiny else 400
    options = [f"regime.num_steps={steps}", f"regime.validate_every_n_steps={steps // 2}",
               f"regime.checkpoint_every_n_steps={steps // 2}",
               f"regime.publish_metrics_every_n_steps={max(steps // 20, 1)}",
               # Few steps train the head only where it need not wait for the embeddings.
               "criterion.config.atm_start=0",
               "report=false", "regime.keep_last_n_checkpoints=2"]  # fmt: skip
    hidden = {} if device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "atr_moco_plugin.recipes.toy", str(folder), "--no-rich",
               "--config", *options, *(TINY_RUN if tiny else ())]  # fmt: skip

    def run() -> tuple[float, list[dict[str, Any]]]:
        start = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, **hidden},
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise RuntimeError(said[-1] if said else f"exit status {done.returncode}")
        lines = (folder / "metrics" / "train.jsonl").read_text().splitlines()
        return time.monotonic() - start, [json.loads(line) for line in lines]

    seconds, lines = run()
    figures = json.loads((folder / "retrieval.json").read_text())["splits"]["test"]
    shutil.rmtree(folder / "checkpoints" / f"step_{steps}")
    again, resumed = run()
    first, last = lines[0]["Loss"], lines[-1]["Loss"]
    if not (math.isfinite(last) and (tiny or last < first)):
        raise RuntimeError(f"the loss went from {first} to {last}")
    return {
        "steps": steps, "seconds": round(seconds, 1), "first_loss": first, "last_loss": last,
        "seconds_resumed": round(again, 1), "last_loss_resumed": resumed[-1]["Loss"],
        **{f"test_r_sum_{way}": figures[way]["r_sum"] for way in ("dual", "reranked", "chance")},
    }  # fmt: skip


def main() -> None:
    """Do all parts, write the JSON and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="JSON to write")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that take no time")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; `--device cpu --tiny` does it in miniature.")
    device, parts, keep = torch.device(args.device), Parts(BUDGET), TRAINING_TIME
    rows: list[Row] = []
    machine = Machine.measured(device)
    print(machine, flush=True)

    def measure(module: Any) -> None:
        for row in module.rows(machine, tiny=args.tiny):
            rows.append(row)  # those before a failure stay
            if parts.left < keep:
                raise TimeoutError(f"no time left after the row: {row.name}")

    for module in BENCHMARKS:
        parts.run(module.__name__, partial(measure, module), keep)
    options = {
        name: parts.run(f"step, {name}", partial(layer_option, name, machine, args.tiny), keep)
        for name in LAYER_OPTIONS
    }
    with tempfile.TemporaryDirectory() as folder:
        training = parts.run(
            "toy recipe",
            lambda: train(Path(folder) / "run", device, args.tiny, max(parts.left / 2, 1.0)),
        )
    harness.write_json(args.out, machine, rows, parts=parts.done, layer_options=options,
                       training=training)  # fmt: skip
    print(f"\n{machine}\n\n{harness.table(rows)}\n")
    print(json.dumps({"layer_options": options, "training": training}, indent=1))


if __name__ == "__main__":
    main()
