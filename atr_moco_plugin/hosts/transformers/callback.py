"""What happens between ``Trainer``'s optimizer steps: momentum update, logs, rank analysis."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.hosts.transformers.metrics import TRAINING_ARGUMENTS
from atr_moco_plugin.hosts.transformers.model import TrainerModel
from atr_moco_plugin.rank import RankLogger


class MocoCallback(TrainerCallback):
    """Moves the momentum copies once an optimizer step, and logs.

    However many batches are accumulated, the copies move and the temperature is clipped once. At
    ``Trainer``'s logging steps the criterion's measures (``loss_atc``, ``loss_atm``,
    ``temperature``, ``queue_fill``...) go to ``Trainer``'s logs. Every ``rank_every`` steps the
    first process writes the rank of the queues to ``rank.jsonl`` in the output folder, and its
    scalars to the logs with ``rank/`` before their names.

    Args:
        trainer: its model is a :class:`~atr_moco_plugin.hosts.transformers.model.TrainerModel`.
        rank_every: steps between two rank reports.

    Raises:
        TypeError: the trainer has another model.
        ValueError: ``Trainer`` would not hand the ids to ``compute_metrics``, or shards the model.

    Example:
        >>> trainer.add_callback(MocoCallback(trainer, rank_every=100))  # doctest: +SKIP
    """

    def __init__(self, trainer: Trainer, *, rank_every: int = 100) -> None:
        model = trainer.model
        if not isinstance(model, TrainerModel):
            raise TypeError(
                f"MocoCallback needs a Trainer whose model is a TrainerModel, but it is a "
                f"{type(model).__name__}: wrap it, for example in ClapTrainerModel."
            )
        labels = TRAINING_ARGUMENTS["label_names"]
        if trainer.compute_metrics is not None and trainer.label_names != labels:
            raise ValueError(
                f"TrainingArguments.label_names is {trainer.label_names}, but Trainer computes "
                f"metrics only with {labels}: pass **TRAINING_ARGUMENTS."
            )
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError(
                "The momentum copies follow whole weights, which FSDP and DeepSpeed take apart: "
                "leave `fsdp` and `deepspeed` out and train with DDP."
            )
        self._trainer = trainer
        self._model = model
        self._rank_every = rank_every
        self._rank: RankLogger | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check how the run was started, and open ``rank.jsonl``."""
        if args.n_gpu > 1:
            raise ValueError(
                f"Trainer would spread one process over {args.n_gpu} GPUs (DataParallel), whose "
                "replicas lose what they enqueue: start one process a GPU with torchrun or "
                "accelerate launch, or show one GPU in CUDA_VISIBLE_DEVICES."
            )
        queues = self._model.criterion.queues
        self._fit_queues()
        if queues and state.is_world_process_zero:
            path = Path(args.output_dir) / "rank.jsonl"
            self._rank = RankLogger(queues, path, every=self._rank_every)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the momentum copies and clip the temperature."""
        self._model.criterion.on_optimizer_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log the measures when ``Trainer`` is about to log its loss, and the rank when due."""
        due = control.should_log
        if due:
            self._trainer.log(self._model.pop_measures())
        record = None if self._rank is None else self._rank.log(state.global_step)
        if record is not None:
            scalars = RankLogger.scalars(record)
            self._trainer.log({f"rank/{name}": value for name, value in scalars.items()})
        # Trainer.log marks the step as logged, but Trainer's own loss is still to come.
        control.should_log = due

    def _fit_queues(self) -> None:
        """Tell the queues what data they are of, where it has a ``fingerprint()``; bound growing ones
        by the pairs of an epoch, and warn of longer fixed ones."""
        data = self._trainer.train_dataset
        queues = self._model.criterion.queues
        if queues and callable(getattr(data, "fingerprint", None)):
            self._model.criterion.of_data(data.fingerprint())
        if not queues or not hasattr(data, "__len__"):
            return
        pairs = len(data)
        self._model.criterion.limit_growth(pairs)
        size = next(iter(queues.values())).size
        if size > pairs:
            warnings.warn(
                f"The queue has {size:,} rows, but an epoch has {pairs:,} pairs: it will hold "
                "stale copies of every item. Set `queue_size` to at most an epoch.",
                stacklevel=2,
            )
