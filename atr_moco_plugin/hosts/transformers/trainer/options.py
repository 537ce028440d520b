"""What a training that goes on has to keep: options of the criterion, the model, what makes a
step, and how many processes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transformers import Trainer, TrainerState

from atr_moco_plugin.criterion.kept_options import (
    kept_options,
    other_length,
    steps_of_another_run,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.internals import saved_beside
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.description import describe
from atr_moco_plugin.hosts.transformers.trainer.resume import OPTIONS, PROCESSES
from atr_moco_plugin.io.changes import changes, flat
from atr_moco_plugin.model import RetrievalModelConfig

_LENGTH = "total_steps"
_OF_A_STEP = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "bf16",
    "fp16",
)
"""Fields of ``TrainingArguments``."""
_DRAWN = ("seed", "data_seed")
_OPTIMIZER = (
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim",
    "optim_args",
)
"""Fields of what ``Trainer`` draws by, and of the optimizer that it makes. They are kept with the
name of ``TrainingArguments``, since a criterion has a ``seed`` too."""
_NO_MODEL = ("origin", "packages", "name_or_path", "architectures", "dtype", "torch_dtype")
"""Of a model's description, what says where it came from, or was written by its saving."""


def arguments_to_keep(trainer: Trainer) -> list[str]:
    """Fields of ``TrainingArguments`` that the state of an optimizer would take the place of in
    silence, and the seeds. Those of an optimizer of the user's own say nothing. Another schedule
    takes effect.

    Args:
        trainer: before its training, which makes what it has not been given.
    """
    kind, names = type(trainer), list(_DRAWN)
    if kind.create_optimizer_and_scheduler is not Trainer.create_optimizer_and_scheduler:
        return names
    given = trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None
    if not given and kind.create_optimizer is Trainer.create_optimizer:
        names += _OPTIMIZER
    return names


def keep_options(trainer: Trainer, state: TrainerState, arguments: Sequence[str]) -> None:
    """Compare what a training has to keep with that of the checkpoint that it goes on from, where
    that has it, and have the next checkpoints save it. Warn of another length, and of steps of an
    earlier training, where a schedule follows them.

    Args:
        trainer: its model is a :class:`TrainerModel`.
        state: of ``Trainer`` when the training begins, with what the checkpoint says.
        arguments: of :func:`arguments_to_keep`.

    Raises:
        InputError: naming what has changed.
    """
    model: Any = trainer.model
    assert isinstance(model, TrainerModel), "MocoCallback has checked it"
    options = _options(trainer, model, arguments)
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


def _options(trainer: Trainer, model: TrainerModel, arguments: Sequence[str]) -> dict[str, Any]:
    args = trainer.args
    options = {"criterion": model.criterion_name, **kept_options(model.criterion.config)}
    if not args.save_on_each_node:  # else no folder has the random states of all processes
        options[PROCESSES] = args.world_size
    if getattr(model.criterion, "learns_temperature", True):
        options.pop("temperature", None)  # the weights have what it is by then
    options |= {name: getattr(args, name) for name in _OF_A_STEP}
    given = {name: getattr(args, name) for name in arguments if hasattr(args, name)}
    options |= {f"TrainingArguments.{name}": _plain(value) for name, value in given.items()}
    if kind := options.get("TrainingArguments.optim"):
        options["TrainingArguments.optim"] = kind.removesuffix("_fused")  # the same, in other steps
    named: Any = getattr(model.criterion.model, "config", None)
    if isinstance(named, RetrievalModelConfig):  # the description of a model does not have it
        dropped = named.patch_dropout
        options["patch_dropout"] = None if dropped is None else asdict(dropped)
    described = _plain(describe(trainer) or {})
    return options | {
        name: value
        for name, value in flat(described).items()
        if not any(key in _NO_MODEL or key.startswith("_") for key in name.split("."))
    }


def _plain(value: Any) -> Any:
    """A value of JSON's types, as a checkpoint has it."""
    return json.loads(json.dumps(value, default=str))
