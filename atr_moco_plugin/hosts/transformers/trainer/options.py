"""What a training that goes on has to keep: options of the criterion, and how many processes."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import TrainerState, TrainingArguments

from atr_moco_plugin.criterion.kept_options import (
    kept_options,
    other_length,
    steps_of_another_run,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.internals import saved_beside
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.resume import OPTIONS, PROCESSES
from atr_moco_plugin.io.changes import changes

_LENGTH = "total_steps"


def keep_options(model: TrainerModel, args: TrainingArguments, state: TrainerState) -> None:
    """Compare the options of the criterion and the number of processes with those of the checkpoint
    that a training goes on from, if it has them, and have the next checkpoints save them. Warn of
    another length, and of steps of an earlier training, where a schedule follows them.

    Args:
        model: it is trained.
        args: of ``Trainer``.
        state: of ``Trainer`` when the training begins, with what the checkpoint says.

    Raises:
        InputError: naming what has changed.
    """
    options = _options(model, args)
    saved = saved_beside(state)
    before = saved.get(OPTIONS, {})
    if changed := changes(before, options):
        raise InputError(
            f"The training cannot go on with other options: {changed}. Give it those of "
            "the checkpoint, or begin a new training from its weights."
        )
    told = (
        other_length(model.criterion, before.get(_LENGTH), state.max_steps),
        steps_of_another_run(model.criterion, state.global_step, state.max_steps),
    )
    for warning in told:
        if warning is not None and state.is_world_process_zero:
            warnings.warn(warning, stacklevel=2)
    saved[OPTIONS] = {**options, _LENGTH: state.max_steps}


def _options(model: TrainerModel, args: TrainingArguments) -> dict[str, Any]:
    options = {"criterion": model.criterion_name, **kept_options(model.criterion.config)}
    if not args.save_on_each_node:  # else no folder has the random states of all processes
        options[PROCESSES] = args.world_size
    if getattr(model.criterion, "learns_temperature", True):
        options.pop("temperature", None)  # the weights have what it is by then
    return options
