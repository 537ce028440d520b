"""What a training that goes on has to keep: options of the criterion, and how many processes."""

from __future__ import annotations

from typing import Any

from transformers import TrainerState, TrainingArguments

from atr_moco_plugin.criterion.kept_options import kept_options
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.internals import saved_beside
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.resume import OPTIONS, PROCESSES
from atr_moco_plugin.io.changes import changes


def keep_options(model: TrainerModel, args: TrainingArguments, state: TrainerState) -> None:
    """Compare the options of the criterion and the number of processes with those of the checkpoint
    that a training goes on from, if it has them, and have the next checkpoints save them.

    Args:
        model: it is trained.
        args: of ``Trainer``.
        state: of ``Trainer`` when the training begins, with what the checkpoint says.

    Raises:
        InputError: naming what has changed.
    """
    options = _options(model, args)
    saved = saved_beside(state)
    if changed := changes(saved.get(OPTIONS, {}), options):
        raise InputError(
            f"The training cannot go on with other options: {changed}. Give it those of "
            "the checkpoint, or begin a new training from its weights."
        )
    saved[OPTIONS] = options


def _options(model: TrainerModel, args: TrainingArguments) -> dict[str, Any]:
    options = {"criterion": model.criterion_name, **kept_options(model.criterion.config)}
    if not args.save_on_each_node:  # else no folder has the random states of all processes
        options[PROCESSES] = args.world_size
    if getattr(model.criterion, "learns_temperature", True):
        options.pop("temperature", None)  # the weights have what it is by then
    return options
