"""What happens between ``Trainer``'s optimizer steps: momentum update, logs, rank analysis."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.metrics import TRAINING_ARGUMENTS
from atr_moco_plugin.hosts.transformers.model import TrainerModel
from atr_moco_plugin.hosts.transformers.safety import make_guard
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard


class MocoCallback(TrainerCallback):
    """Moves the momentum copies once an optimizer step, and logs.

    However many batches are accumulated, the copies move and the temperature is clipped once. At
    ``Trainer``'s logging steps the criterion's measures (``loss_atc``, ``loss_atm``,
    ``temperature``, ``queue_fill``...) go to ``Trainer``'s logs. Every ``rank_every`` steps the
    first process writes the rank of the queues to ``rank.jsonl`` in the output folder, and its
    scalars to the logs with ``rank/`` before their names.

    A loss or a gradient that is NaN or infinite stops the training before the optimizer makes its
    step, on all processes alike, with a
    :class:`~atr_moco_plugin.safety.finite.NonFiniteError` that names the step, the clips and the
    last good checkpoint. It is warned once of embeddings that collapse and of a matching head that
    learns nothing, see :class:`~atr_moco_plugin.safety.collapse.CollapseWatch`.

    Args:
        trainer: its model is a :class:`~atr_moco_plugin.hosts.transformers.model.TrainerModel`.
        rank_every: steps between two rank reports.
        max_skipped_steps: steps that are not finite that are left out, with a warning each, before
            one stops the training.

    Raises:
        TypeError: the trainer has another model.
        ValueError: ``Trainer`` would not hand the ids to ``compute_metrics``, or shards the model.

    Example:
        >>> trainer.add_callback(MocoCallback(trainer, rank_every=100))  # doctest: +SKIP
    """

    def __init__(
        self, trainer: Trainer, *, rank_every: int = 100, max_skipped_steps: int = 0
    ) -> None:
        model = trainer.model
        if not isinstance(model, TrainerModel):
            raise TypeError(
                f"MocoCallback needs a Trainer whose model is a TrainerModel, but it is a "
                f"{type(model).__name__}: wrap it, for example in ClapTrainerModel."
            )
        labels = TRAINING_ARGUMENTS["label_names"]
        if trainer.compute_metrics is not None and trainer.label_names != labels:
            raise InputError(
                f"TrainingArguments.label_names is {trainer.label_names}, but Trainer computes "
                f"metrics only with {labels}: pass **TRAINING_ARGUMENTS."
            )
        if trainer.args.world_size > 1 and not trainer.args.accelerator_config.even_batches:
            raise InputError(
                "accelerator_config.even_batches is off, so that ranks would have different numbers "
                "of batches, and one would wait for the others forever: leave it on."
            )
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "The momentum copies follow whole weights, which FSDP and DeepSpeed take apart: "
                "leave `fsdp` and `deepspeed` out and train with DDP."
            )
        self._trainer = trainer
        self._model = model
        self._rank_every = rank_every
        self._rank: RankLogger | None = None
        self._max_skipped_steps = max_skipped_steps
        self._guard: FiniteGuard | None = None
        self._collapse: CollapseWatch | None = None
        model.register_forward_hook(self._show_loss, with_kwargs=True)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: Optimizer,
        **_: Any,
    ) -> None:
        """Check how the run was started, guard its optimizer, and open ``rank.jsonl``."""
        if args.n_gpu > 1:
            raise InputError(
                f"Trainer would spread one process over {args.n_gpu} GPUs (DataParallel), whose "
                "replicas lose what they enqueue: start one process a GPU with torchrun or "
                "accelerate launch, or show one GPU in CUDA_VISIBLE_DEVICES."
            )
        if self._guard is not None:
            self._guard.close()
        self._guard = make_guard(self._trainer, optimizer, self._max_skipped_steps)
        if state.is_world_process_zero:
            self._collapse = CollapseWatch(state.max_steps // 2)
        queues = self._model.criterion.queues
        self._fit_queues()
        if queues and state.is_world_process_zero:
            path = Path(args.output_dir) / "rank.jsonl"
            self._rank = RankLogger(queues, path, every=self._rank_every)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the guard which step it is."""
        if self._guard is not None:
            self._guard.step = state.global_step + 1

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the momentum copies and clip the temperature."""
        if self._guard is not None:
            self._guard.check_left_out()
        self._model.criterion.on_optimizer_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log the measures when ``Trainer`` is about to log its loss, and the rank when due."""
        due = control.should_log
        if due:
            measures = self._model.pop_measures()
            self._trainer.log(measures)
            if self._collapse is not None:
                queues = self._model.criterion.queues
                self._collapse.look(state.global_step, queues, measures)
        record = None if self._rank is None else self._rank.log(state.global_step)
        if record is not None:
            scalars = RankLogger.scalars(record)
            self._trainer.log({f"rank/{name}": value for name, value in scalars.items()})
        # Trainer.log marks the step as logged, but Trainer's own loss is still to come.
        control.should_log = due

    def _show_loss(
        self, model: TrainerModel, _: Any, batch: dict[str, Any], losses: dict[str, Tensor]
    ) -> None:
        if model.training and self._guard is not None:
            self._guard.watch(losses["loss"], batch["clip_id"])

    def _fit_queues(self) -> None:
        """Tell the queues what data they are of, where it has a ``fingerprint()``; bound growing
        ones by the pairs of an epoch, and warn of longer fixed ones."""
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
