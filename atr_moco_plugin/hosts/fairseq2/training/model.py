"""The criterion as fairseq2 trains, shards and saves it."""

from __future__ import annotations

from typing import Any

from fairseq2.nn.fsdp import FSDPWrapper
from fairseq2.recipe.error import RecipeError
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn import Module

from atr_moco_plugin.hosts.fairseq2.compat import name_gradient_sync
from atr_moco_plugin.hosts.fairseq2.training.layers import layer_stacks
from atr_moco_plugin.model import RetrievalModelConfig
from atr_moco_plugin.model.adapters import merged_state


def convert_state_dict(
    state_dict: dict[str, object], config: RetrievalModelConfig
) -> dict[str, object]:
    """Take the online model out of a training checkpoint, which holds the whole criterion.

    The momentum copies, the queues and the temperature stay behind, and adapters are merged: new
    ones begin at nothing, as ``config`` says.
    """
    prefix = "model."
    names = [name for name in state_dict if name.startswith(prefix)]
    state: Any = {x.removeprefix(prefix): state_dict[x] for x in names} or state_dict
    return {**merged_state(state)}


def apply_fsdp(model: Any, granularity: str, wrapper: FSDPWrapper) -> Module:
    """Shard each tower, online and momentum, as one unit; the small rest goes with the root. The
    text encoder is one of its own, since the matching head of ``blip`` runs it again.

    Args:
        model: a criterion around its model.
        granularity: ``stack`` for these units, ``layer`` for each layer of BEATs and BERT as one
            within them. An encoder with layers of another kind stays one unit.
        wrapper: makes a module a unit, resharded after its forward pass as
            ``trainer.fsdp.reshard_after_forward`` says; the root never is, since the backward pass
            needs it first.

    Raises:
        RecipeError: for another granularity.
    """
    if granularity not in ("layer", "stack"):
        raise RecipeError(
            f"`trainer.fsdp.granularity` is {granularity}, but must be layer or stack."
        )
    inner = model.model
    for owner, name in (
        (inner, "audio"),
        (inner.text, "encoder"),
        (inner, "text"),
        (inner, "head"),
        (model, "audio_m"),
        (model, "text_m"),
    ):
        part = getattr(owner, name, None)
        if part is None:  # such as the momentum copies of online keys
            continue
        if granularity == "layer" and part is not inner.text:  # its encoder has them already
            for stack in layer_stacks(part):
                for number, layer in enumerate(stack):
                    stack[number] = wrapper(layer)
        owner.register_module(name, wrapper(part))
    for part, method in (
        (inner.audio, "frozen_part"),
        (getattr(inner.text, "encoder", None), "lower"),
        (getattr(inner.text, "encoder", None), "upper"),
    ):
        # What runs outside of a unit's forward pass needs its weights too.
        if isinstance(part, Module) and hasattr(part, method):
            register_fsdp_forward_method(part, method)
    sharded = wrapper(model, reshard_after_forward=False)
    name_gradient_sync(sharded)
    return sharded
