"""What happens around ``Trainer``'s optimizer steps: momentum update, logs, rank analysis."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from atr_moco_plugin.criterion import MocoAtc
from atr_moco_plugin.criterion.queue_pair import stale_copies
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator
from atr_moco_plugin.hosts.transformers.data.loaders import set_up_loaders
from atr_moco_plugin.hosts.transformers.internals import log_beside, torch_optimizer
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.arguments import check_trainer
from atr_moco_plugin.hosts.transformers.trainer.description import write_description
from atr_moco_plugin.hosts.transformers.trainer.left_out import limit_left_out, names_of_clips
from atr_moco_plugin.hosts.transformers.trainer.options import arguments_to_keep, keep_options
from atr_moco_plugin.hosts.transformers.trainer.passes import Passes, length_of
from atr_moco_plugin.hosts.transformers.trainer.probe import key_probe
from atr_moco_plugin.hosts.transformers.trainer.resume import last_good, set_aside_earlier
from atr_moco_plugin.io.step_records import drop_after
from atr_moco_plugin.optim.step_hook import attach
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.safety import CollapseWatch, FiniteGuard
from atr_moco_plugin.safety.finite import by_number
from atr_moco_plugin.teaching import use_teachers


class MocoCallback(TrainerCallback):
    """Moves the momentum copies once in each optimizer step, and logs.

    The criterion is attached to ``Trainer``'s optimizer: however many batches are accumulated, the
    copies move and the temperature is clipped once, and not in a step that is left out. At
    ``Trainer``'s logging steps the criterion's measures (``loss_atc``, ``loss_atm``,
    ``temperature``, ``queue_fill``...) go to ``Trainer``'s logs. Every ``rank_every`` steps the
    first process writes the rank of the queues to ``rank.jsonl`` in the output folder, and its
    scalars to the logs with ``rank/`` before their names.

    Training batches come from :meth:`~atr_moco_plugin.hosts.transformers.ClapCollator.for_training`
    of ``Trainer``'s collator, evaluation batches from its plain form. Clips that the collator
    leaves out are counted in each process; the end of the training names them.

    A loss or a gradient that is NaN or infinite stops the training before the optimizer makes its
    step, on all processes alike, with a
    :class:`~atr_moco_plugin.safety.finite.NonFiniteError` that names the step, the clips and the
    last good checkpoint. One warning each says that embeddings collapse or that a matching head
    learns nothing, see :class:`~atr_moco_plugin.safety.collapse.CollapseWatch`.

    Args:
        trainer: its model is a :class:`~atr_moco_plugin.hosts.transformers.TrainerModel`. If its
            training set has ``name_clips(ids)``, as
            :class:`~atr_moco_plugin.hosts.transformers.PairDataset` has, messages name clips by
            it; otherwise by their ids.
        rank_every: steps between two rank reports.
        probe_every: steps between two encodings of a probe, whose drift is in the rank reports (see
            :class:`~atr_moco_plugin.rank.drift.KeyDrift`); 0 for none. None is 100 where the first
            training pairs can be read again: with a ``ClapCollator`` and a training set with a
            length, or a training set with ``probe_batch(P)``, which returns a batch.
        max_skipped_steps: so many steps that are not finite are left out, with a warning each; one
            more stops the training.
        max_bad_clips: so many clips that cannot be used are left out in a process; one more stops
            the training. None allows one in a thousand examples, at least 10. The same number
            holds for an evaluation.
        allow_unknown: go on also where more than half of a split's captions are ``[UNK]`` alone to
            the collator's tokenizer.

    Raises:
        TypeError: the trainer has another model.
        InputError: an option of the trainer does not go with such a model, see
            :mod:`atr_moco_plugin.hosts.transformers.trainer.arguments`.

    Example:
        >>> trainer.add_callback(MocoCallback(trainer, rank_every=100))  # doctest: +SKIP
    """

    _guard: FiniteGuard  # from the beginning of a training on
    _passes: Passes
    _rank: RankLogger | None = None
    _collapse: CollapseWatch | None = None
    _collator: ClapCollator | None = None

    def __init__(
        self,
        trainer: Trainer,
        *,
        rank_every: int = 100,
        probe_every: int | None = None,
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
            named = trainer.eval_dataset
            evaluated = list(named.values()) if isinstance(named, dict) else [named]
            datasets = (trainer.train_dataset, *evaluated)
            text: Any = model.criterion.model.text
            trainer.data_collator.check(text.encoder, datasets, allow_unknown=allow_unknown)
        self._trainer = trainer
        self._model = model
        self._arguments = arguments_to_keep(trainer)
        self._rank_every = rank_every
        self._probe_every = probe_every
        self._max_skipped_steps = max_skipped_steps
        self.max_bad_clips = max_bad_clips
        self._hooks = ExitStack()  # of one training: the next one may have another optimizer
        self._loaders = set_up_loaders(trainer, self._for_training)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check how the run was started, attach to its optimizer, and open ``rank.jsonl``."""
        check_trainer(self._trainer)
        if (loader := kwargs.get("train_dataloader")) is not None and length_of(loader) == 0:
            raise InputError(
                f"The training set makes no batch of {args.train_batch_size} on each of "
                f"{args.world_size} processes with dataloader_drop_last=True, so that nothing "
                "would be trained: lower per_device_train_batch_size or leave "
                "dataloader_drop_last out."
            )
        if self._trainer.model is not self._model:
            raise InputError(
                "Trainer has another model than when MocoCallback was made, and its momentum "
                "copies would not move: make a new MocoCallback after the model."
            )
        self._passes = Passes(state)
        keep_options(self._trainer, state, self._arguments)
        self._model.skipped_in_training.clear()
        criterion, optimizer = self._model.criterion, kwargs["optimizer"]
        criterion.total_steps = state.max_steps
        output_dir = Path(str(args.output_dir))
        trained_on = getattr(self._trainer.train_dataset, "source", ())
        use_teachers(criterion, *trained_on, folder=output_dir)
        self._hooks.close()
        self._guard = FiniteGuard(
            torch_optimizer(optimizer),
            criterion,
            max_skipped=self._max_skipped_steps,
            name_clips=getattr(self._trainer.train_dataset, "name_clips", by_number),
            last_good=partial(last_good, output_dir),
        )
        self._guard.step = state.global_step + 1
        self._hooks.callback(self._guard.close)
        self._hooks.callback(attach(criterion, optimizer).remove)
        hook = self._model.register_forward_hook(self._watch_loss, with_kwargs=True)
        self._hooks.callback(hook.remove)
        self._fit_queues()
        if state.is_world_process_zero:
            self._collapse = CollapseWatch(state.max_steps // 2, criterion=criterion)
            if criterion.queues:
                path = output_dir / "rank.jsonl"
                if not state.global_step:
                    set_aside_earlier(path)
                drop_after(path, state.global_step)  # it is recorded again
                self._rank = RankLogger(
                    criterion.queues,
                    path,
                    every=self._rank_every,
                    probe=key_probe(self._trainer, self._model, self._probe_every),
                    probe_every=100 if self._probe_every is None else self._probe_every,
                )
                self._rank.look(state.global_step)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the collator which epoch it is."""
        number = self._passes.begin(state, kwargs.get("train_dataloader"))
        if self._collator is not None:
            self._collator.set_epoch(number)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the measures when ``Trainer`` is about to log its loss, and the rank when due; stop
        where too many clips were left out."""
        self._guard.check_skipped_step()  # a step that a gradient scaler has left out
        step = state.global_step
        self._guard.step = step + 1
        if control.should_log:
            self._log_measures(step, control)
        if self._rank is not None and (record := self._rank.log(step)) is not None:
            scalars = RankLogger.scalars(record)
            ranks = {f"rank/{name}": value for name, value in scalars.items()}
            log_beside(self._trainer, control, ranks)
        skipped, dataset = self._model.skipped_in_training, self._trainer.train_dataset
        limit_left_out(skipped, dataset, "the training", self.max_bad_clips)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the measures where ``logging_strategy`` is ``epoch``."""
        if control.should_log:
            self._log_measures(state.global_step, control)

    def _log_measures(self, step: int, control: TrainerControl) -> None:
        measures = self._model.pop_measures()
        log_beside(self._trainer, control, measures)
        if self._collapse is not None:
            self._collapse.look(step, self._model.criterion.queues, measures)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write beside the checkpoint what builds its model again, for ``export``."""
        if state.is_world_process_zero:
            write_description(
                self._trainer, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Stop where too many clips were left out of the figures."""
        skipped = self._model.skipped_in_evaluation
        dataset = self._loaders.evaluated  # None where an `evaluate` of one's own made the loader
        dataset = self._trainer.eval_dataset if dataset is None else dataset
        limit_left_out(skipped, dataset, "an evaluation", self.max_bad_clips)
        skipped.clear()

    on_predict = on_evaluate

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the optimizer alone, and name the clips that this process left out."""
        self._hooks.close()
        skipped = self._model.skipped_in_training
        if skipped:
            warnings.warn(
                f"{len(skipped):,} clips could not be used and were left out of the training: "
                f"{names_of_clips(skipped, self._trainer.train_dataset)}.",
                stacklevel=2,
            )

    def _for_training(self, collator: ClapCollator) -> ClapCollator:
        args = self._trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        self._collator = collator.for_training(seed)
        return self._collator

    def _watch_loss(
        self, model: TrainerModel, _: Any, batch: dict[str, Any], losses: dict[str, Tensor]
    ) -> None:
        if model.training:
            self._guard.watch(losses["loss"], batch["clip_id"])

    def _fit_queues(self) -> None:
        """Tell the criterion which data its queues or sums are of, where the data have a
        ``fingerprint()``; bound growing queues by the pairs of an epoch, and warn of longer fixed
        ones."""
        dataset, criterion = self._trainer.train_dataset, self._model.criterion
        fingerprint = getattr(dataset, "fingerprint", None)
        if callable(set_data := getattr(criterion, "set_data", None)) and callable(fingerprint):
            set_data(fingerprint())
        if not isinstance(criterion, MocoAtc) or not isinstance(dataset, Sized):
            return
        pairs = len(dataset)
        criterion.limit_growth(pairs)
        if (warning := stale_copies(criterion.queues, pairs)) is not None:
            warnings.warn(warning, stacklevel=2)
