"""What happens around ``Trainer``'s optimizer steps: momentum update, logs, rank analysis."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.data.loading.loader import tolerated_clips
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator
from atr_moco_plugin.hosts.transformers.data.loaders import tell_loaders
from atr_moco_plugin.hosts.transformers.model.criterion_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.arguments import check_trainer
from atr_moco_plugin.hosts.transformers.trainer.safety import make_guard
from atr_moco_plugin.optim.step_hook import Attachment, attach
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard
from atr_moco_plugin.safety.finite import by_number


class MocoCallback(TrainerCallback):
    """Moves the momentum copies once an optimizer step, and logs.

    The criterion is attached to ``Trainer``'s optimizer: however many batches are accumulated, the
    copies move and the temperature is clipped once, and not in a step that is left out. At
    ``Trainer``'s logging steps the criterion's measures (``loss_atc``, ``loss_atm``,
    ``temperature``, ``queue_fill``...) go to ``Trainer``'s logs. Every ``rank_every`` steps the
    first process writes the rank of the queues to ``rank.jsonl`` in the output folder, and its
    scalars to the logs with ``rank/`` before their names.

    It tells a :class:`~atr_moco_plugin.hosts.transformers.data.collator.ClapCollator` which batches are
    for training, so that these alone are cropped at random, and in which epoch. Clips that the
    collator leaves out are counted in each process; the end of the training names them.

    A loss or a gradient that is NaN or infinite stops the training before the optimizer makes its
    step, on all processes alike, with a
    :class:`~atr_moco_plugin.safety.finite.NonFiniteError` that names the step, the clips and the
    last good checkpoint. It is warned once of embeddings that collapse and of a matching head that
    learns nothing, see :class:`~atr_moco_plugin.safety.collapse.CollapseWatch`.

    Args:
        trainer: its model is a :class:`~atr_moco_plugin.hosts.transformers.model.criterion_model.TrainerModel`.
        rank_every: steps between two rank reports.
        max_skipped_steps: steps that are not finite that are left out, with a warning each, before
            one stops the training.
        max_bad_clips: clips that cannot be used that a process leaves out before one more stops the
            training; None for one in a thousand examples, at least 10. The same number holds for an
            evaluation.
        allow_unknown: go on also where more than half of a split's captions are ``[UNK]`` alone to
            the collator's tokenizer.

    Raises:
        TypeError: the trainer has another model.
        ValueError: an option of the trainer does not go with such a model, see
            :mod:`atr_moco_plugin.hosts.transformers.trainer.arguments`.

    Example:
        >>> trainer.add_callback(MocoCallback(trainer, rank_every=100))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        rank_every: int = 100,
        max_skipped_steps: int = 0,
        max_bad_clips: int | None = None,
        allow_unknown: bool = False,
    ) -> None:
        model = trainer.model
        if not isinstance(model, TrainerModel):
            raise TypeError(
                f"MocoCallback needs a Trainer whose model is a TrainerModel, but it is a "
                f"{type(model).__name__}: wrap it, for example in ClapTrainerModel."
            )
        check_trainer(trainer)
        if isinstance(trainer.data_collator, ClapCollator):
            # A mapping of names to data sets is left as it is.
            datasets = (trainer.train_dataset, trainer.eval_dataset)
            encoder = model.criterion.model.text.encoder
            trainer.data_collator.check(encoder, datasets, allow_unknown=allow_unknown)
        self._trainer = trainer
        self._model = model
        self._rank_every = rank_every
        self._rank: RankLogger | None = None
        self._max_skipped_steps = max_skipped_steps
        self.max_bad_clips = max_bad_clips
        self._collator: ClapCollator | None = None
        self._guard: FiniteGuard | None = None
        self._attachment: Attachment | None = None
        self._collapse: CollapseWatch | None = None
        model.register_forward_hook(self._show_loss, with_kwargs=True)
        tell_loaders(trainer, self._for_training)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: Optimizer,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Check how the run was started, attach to its optimizer, and open ``rank.jsonl``."""
        check_trainer(self._trainer)
        if _is_empty(train_dataloader):
            raise InputError(
                f"The training set makes no batch of {args.train_batch_size} on each of "
                f"{args.world_size} processes with dataloader_drop_last=True, so that nothing "
                "would be trained: lower per_device_train_batch_size or leave dataloader_drop_last out."
            )
        if self._trainer.model is not self._model:
            raise InputError(
                "Trainer has another model than when MocoCallback was made, and its momentum "
                "copies would not move: make a new MocoCallback after the model."
            )
        self._model.skipped[True].clear()
        if self._guard is not None:
            self._guard.close()
        self._guard = make_guard(self._trainer, optimizer, self._max_skipped_steps)
        if self._attachment is not None:
            self._attachment.remove()  # `train` may be called again with another optimizer
        self._attachment = attach(self._model.criterion, optimizer)
        if state.is_world_process_zero:
            self._collapse = CollapseWatch(state.max_steps // 2)
        queues = self._model.criterion.queues
        self._fit_queues()
        if queues and state.is_world_process_zero:
            path = Path(args.output_dir) / "rank.jsonl"
            self._rank = RankLogger(queues, path, every=self._rank_every)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the collator which epoch it is."""
        if self._collator is not None:
            # A fraction in a run that goes on within an epoch; its end may be rounded.
            self._collator.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the guard which step it is."""
        if self._guard is not None:
            self._guard.step = state.global_step + 1

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at what a gradient scaler has left out; the optimizer's own hook does the rest."""
        if self._guard is not None:
            self._guard.check_skipped_step()

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
        self._check_skipped(self._trainer.train_dataset, training=True)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop where too many clips were left out of the figures."""
        self._check_skipped(self._trainer.eval_dataset, training=False)
        self._model.skipped[False].clear()

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """As after an evaluation; whose data set it was is not known."""
        self._check_skipped(None, training=False)
        self._model.skipped[False].clear()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Name the clips that this process left out."""
        skipped = self._model.skipped[True]
        if skipped:
            warnings.warn(
                f"{len(skipped):,} clips could not be used and were left out of the training: "
                f"{_names(skipped, self._trainer.train_dataset)}.",
                stacklevel=2,
            )

    def _for_training(self, collator: ClapCollator) -> ClapCollator:
        args = self._trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        self._collator = collator.for_training(seed)
        return self._collator

    def _check_skipped(self, data: Any, training: bool) -> None:
        skipped = self._model.skipped[training]
        if not skipped:
            return
        limit = self.max_bad_clips
        if limit is None:
            limit = tolerated_clips(len(data) if hasattr(data, "__len__") else 0)
        if len(skipped) > limit:
            where = "the training" if training else "an evaluation"
            raise InputError(
                f"More than {limit} clips could not be used and were left out of {where}, among "
                f"them {_names(skipped, data)}: mend them or raise `max_bad_clips`."
            )

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
            self._model.criterion.set_data(data.fingerprint())
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


def _is_empty(loader: Any) -> bool:
    try:
        return loader is not None and len(loader) == 0
    except TypeError:  # of a stream
        return False


def _names(ids: set[int], data: Any) -> str:
    """The first ten of these clips, as their data set calls them."""
    first = sorted(ids)[:10]
    names = getattr(data, "name_clips", by_number)(first)
    more = f" and {len(ids) - 10:,} more" if len(ids) > 10 else ""
    return ", ".join(str(names.get(number, number)) for number in first) + more
