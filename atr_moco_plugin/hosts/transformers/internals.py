"""Everything of ``Trainer``, accelerate and transformers' models that is not documented, in one
place; ``tests/hosts/transformers/test_internals.py`` says what to do where a release moves it.

Imports nothing of this package but ``errors``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainerControl, TrainerState
from transformers.modeling_layers import GradientCheckpointingLayer

from atr_moco_plugin.errors import InputError

NEFTUNE = (
    "neftune_noise_alpha adds noise to the one token embedding of a language model, which a model "
    "of two towers has not: leave it out."
)
LABEL_SMOOTHING = (
    "label_smoothing_factor smooths the labels of a classifier, which this loss has not: leave it "
    "out, the criterion's `alpha` softens its targets."
)
MISSING_ATTRIBUTES = {
    "config": f"A TrainerModel has no `config`; where Trainer asks for it: {LABEL_SMOOTHING}",
    "get_input_embeddings": NEFTUNE,
    # Trainer asks for it where a checkpoint lacks some of the model's weights.
    "_keys_to_ignore_on_save": (
        "The checkpoint lacks weights of this model, so it is of another criterion, head or "
        "encoder: make the model as for the run that saved it, or begin a new training."
    ),
}
"""Attributes of a model that ``Trainer`` asks for in one case each, to what is wrong then."""


class NotOfferedError(InputError, AttributeError):
    """``Trainer`` asks for an attribute that a model of two towers has not. It is an AttributeError
    too, so that ``hasattr`` says no."""


def torch_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, where accelerate has wrapped it."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def shards_weights(trainer: Trainer) -> bool:
    """Whether FSDP or DeepSpeed takes the weights apart, however it was asked for."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def log_beside(trainer: Trainer, control: TrainerControl, values: dict[str, float]) -> None:
    """Log values in a step in which ``Trainer`` may still have its own loss to log:
    ``Trainer.log`` marks the step as logged."""
    due = control.should_log
    trainer.log(values)
    control.should_log = due


def saved_beside(state: TrainerState) -> dict[str, Any]:
    """What others than ``Trainer`` have in the ``trainer_state.json`` of the checkpoint that a
    training goes on from, by name; what is put there is in its next checkpoints too."""
    saved: dict[str, Any] = state.stateful_callbacks  # type: ignore[assignment]
    return saved


def checkpoint_layers(
    tower: nn.Module,
    name: str,
    options: Mapping[str, Any],
    every: int = 1,
    *,
    but: Callable[[nn.Module], bool],
) -> None:
    """Have the layers of a tower computed again in the backward pass (gradient checkpointing).

    ``PreTrainedModel.gradient_checkpointing_enable`` is no way: ``ClapModel`` refuses there,
    although its layers can do it.

    Args:
        tower: with each :class:`~transformers.modeling_layers.GradientCheckpointingLayer` in it.
        name: name of the tower in the message.
        options: of :func:`torch.utils.checkpoint.checkpoint`.
        every: 1 for each layer, 2 for every second one, counted from the first.
        but: of a layer, whether it is left out.

    Raises:
        InputError: the tower has no such layer.
    """
    layers = [x for x in tower.modules() if isinstance(x, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"gradient_checkpointing=True cannot be done: no layer of the {name} tower is a "
            "`GradientCheckpointingLayer` of transformers; leave it out."
        )
    # Reentrant checkpoints and DDP, which looks for unused parameters, do not go together.
    compute = partial(checkpoint, **{"use_reentrant": False, **options})
    for layer in [x for x in layers if not but(x)][::every]:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = compute  # type: ignore[assignment]
