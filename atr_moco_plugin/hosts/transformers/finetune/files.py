"""The files of a run that grow while it trains, in the form of the recipes' own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.hosts.transformers.finetune.batches import STATE_FILE, StepBatches
from atr_moco_plugin.hosts.transformers.trainer.description import FILE, FOLDER
from atr_moco_plugin.io.stdout import say
from atr_moco_plugin.io.step_records import last_value
from atr_moco_plugin.report.titles import TITLES

CHECKPOINT_PARTS = (STATE_FILE, f"{FOLDER}/{FILE}")
"""What callbacks write into a checkpoint after ``Trainer`` has saved it: where a kill came between,
a run can neither go on from it nor make a bundle of it."""

_OWN = {"loss": "Loss", "grad_norm": "Gradient Norm", "learning_rate": "Learning Rate"}


class RunFiles(TrainerCallback):
    """Writes ``metrics/train.jsonl`` and ``metrics/valid.jsonl``, a line of both to the console,
    and the place in the data into each checkpoint.

    Args:
        trainer: its logs are written.
        output_dir: of the run.
        batches: the training batches.
        score: name of the figure that chooses the best checkpoint.
    """

    def __init__(
        self, trainer: Trainer, output_dir: Path, batches: StepBatches, score: str
    ) -> None:
        self._trainer = trainer
        self._metrics = output_dir / "metrics"
        self._batches = batches
        self._score = score
        self._pending: dict[str, Any] = {}
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count the time, with that of the run until it was stopped."""
        self._started = time.monotonic() - last_value(self._metrics / "train.jsonl", "Total Time")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a record: of a validation, or of the steps since the last one."""
        logs = dict(logs or {})
        logs.pop("epoch", None)
        if any(name.startswith("eval_") for name in logs):
            figures = {name.removeprefix("eval_"): value for name, value in logs.items()}
            self._write("valid.jsonl", state, {TITLES.get(k, k): v for k, v in figures.items()})
            self._tell(state, "validation", {self._score: figures.get(self._score)})
            return
        if any(name.startswith("rank/") for name in logs) or "train_runtime" in logs:
            return  # in rank.jsonl; the end of the training
        self._pending |= logs
        if "loss" in logs:
            named = {(_OWN | TITLES).get(k, k): v for k, v in self._pending.items()}
            if "Learning Rate" in named:
                # Of every group, as the recipes write them.
                groups = self._trainer.optimizer.param_groups  # type: ignore[union-attr]
                named["Learning Rate"] = [group["lr"] for group in groups]
            seconds = time.monotonic() - self._started
            self._write("train.jsonl", state, {**named, "Total Time": round(seconds, 3)})
            self._tell(state, "training", {"loss": logs["loss"]})
            self._pending = {}

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the place in the data."""
        self._batches.save(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def _write(self, name: str, state: TrainerState, values: dict[str, Any]) -> None:
        self._metrics.mkdir(parents=True, exist_ok=True)
        record = {"Step": state.global_step, **values}
        with (self._metrics / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _tell(self, state: TrainerState, what: str, values: dict[str, Any]) -> None:
        shown = ", ".join(f"{TITLES.get(k, k)} {v:.4g}" for k, v in values.items() if v is not None)
        say(f"step {state.global_step:,} of {state.max_steps:,}, {what}: {shown}")
