"""Options of the criterion, which a training that goes on has to keep."""

from __future__ import annotations

from typing import Any

from transformers import TrainerState

from atr_moco_plugin.criterion.kept_options import kept_options
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.internals import saved_beside
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel

_KEY = "atr_moco_plugin"
"""The name of the options in a checkpoint's ``trainer_state.json``."""


def keep_options(model: TrainerModel, state: TrainerState) -> None:
    """Compare the options of the criterion with those of the checkpoint that a training goes on
    from, if it has them, and have the next checkpoints save them.

    Args:
        model: it is trained.
        state: of ``Trainer`` when the training begins, with what the checkpoint says.

    Raises:
        InputError: naming what has changed.
    """
    options = _options(model)
    saved = saved_beside(state)
    before = saved.get(_KEY, {})
    changed = [
        f"{key} was {before[key]} and is {value}"
        for key, value in options.items()
        if key in before and before[key] != value
    ]
    if changed:
        raise InputError(
            f"The training cannot go on with other options of the criterion: {'; '.join(changed)}. "
            "Make the model with those of the checkpoint, or begin a new training from its weights."
        )
    saved[_KEY] = options


def _options(model: TrainerModel) -> dict[str, Any]:
    options = {"criterion": model.criterion_name, **kept_options(model.criterion.config)}
    if getattr(model.criterion, "learns_temperature", True):
        options.pop("temperature", None)  # the weights have what it is by then
    return options
