"""Gradient checkpointing of the encoders of a tower."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from atr_moco_plugin.errors import InputError


def checkpoint_layers(
    tower: nn.Module, name: str, options: Mapping[str, Any], every: int = 1
) -> None:
    """Have the layers of a tower computed again in the backward pass.

    ``PreTrainedModel.gradient_checkpointing_enable`` is not asked: ``ClapModel`` refuses there,
    although its layers can do it.

    Args:
        tower: its layers are :class:`~transformers.modeling_layers.GradientCheckpointingLayer`.
        name: of the tower, for the message.
        options: of :func:`torch.utils.checkpoint.checkpoint`.
        every: which layers, counted from the first.

    Raises:
        ValueError: the tower has no such layer.
    """
    layers = [x for x in tower.modules() if isinstance(x, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"gradient_checkpointing=True cannot be done: no layer of the {name} tower is a "
            "`GradientCheckpointingLayer` of transformers; leave it out."
        )
    # Reentrant checkpoints and DDP, which looks for unused parameters, do not go together.
    compute = partial(checkpoint, **{"use_reentrant": False, **options})
    for layer in layers[::every]:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = compute
