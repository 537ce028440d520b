"""fairseq2's options on layers, ``model.compile`` and ``trainer.activation_checkpointing``.

Both work on the layers of BEATs, BERT and transformers' encoders wherever they stand: in the
towers, in the matching head and, for compilation, in the momentum copies, which have no gradient
and so nothing to recompute. Names in checkpoints stay the same, so that a run can go on with either
option changed.
"""

from __future__ import annotations

from typing import Any

from fairseq2.models.utils.ac import apply_layerwise_ac
from fairseq2.recipe.error import RecipeError
from torch.nn import Module, ModuleList

from atr_moco_plugin.encoders.beats.transformer import BeatsLayer
from atr_moco_plugin.encoders.bert.layers import BertLayer
from atr_moco_plugin.encoders.hf.encoder import HfEncoder
from atr_moco_plugin.tensors.internals import allow_recompilations

GRAPHS = 64
"""Compiled graphs that may be made of one layer's code before PyTorch falls back to running it
plainly. Its default of 8 is too few: `Module.compile` compiles one function for all modules, and a
layer comes with and without gradient, dropout, padding and cross-attention, at several shapes."""


def checkpoint_layers(model: Module, every_nth_layer: int) -> Module:
    """Keep only the input of every n-th layer of the trained model, and run the layer once more in
    the backward pass (Chen et al., arXiv:1604.06174). In place.

    Args:
        model: a criterion around its model, or a model alone.
        every_nth_layer: 1 for every layer.

    Raises:
        RecipeError: a tower has layers of another kind, whose memory would stay as it is.
    """
    trained = getattr(model, "model", model)
    _check_towers(trained, "trainer.activation_checkpointing.mode=layerwise", "trainer."
                  "activation_checkpointing.mode=off")  # fmt: skip
    for stack in layer_stacks(trained):
        apply_layerwise_ac(stack, every_nth_layer)
    return model


def compile_layers(model: Module, *args: Any, **options: Any) -> None:
    """Compile every layer in place; layers of one shape share what is compiled.

    Args:
        model: a criterion around its model, or a model alone.
        args: of :func:`torch.compile`.
        options: of it too.

    Raises:
        RecipeError: a tower has layers of another kind, which would run as they are.
    """
    _check_towers(getattr(model, "model", model), "model.compile=true",
                  "model.compile=false")  # fmt: skip
    allow_recompilations(GRAPHS)
    for stack in layer_stacks(model):
        for layer in stack:
            layer.compile(*args, **options)


def layer_stacks(module: Module) -> list[ModuleList]:
    """The lists in a module, itself included, that hold layers of BEATs, BERT or an encoder of
    transformers."""
    others = {id(x.layers) for x in module.modules() if isinstance(x, HfEncoder)}
    return [
        x
        for x in module.modules()
        if isinstance(x, ModuleList) and (id(x) in others or _are_layers(x))
    ]


def _are_layers(stack: ModuleList) -> bool:
    # `modules` of a checkpointed layer gives the wrapper and then the layer.
    kinds = (BeatsLayer, BertLayer)
    return any(isinstance(x, kinds) for layer in stack for x in layer.modules())


def _check_towers(model: Module, option: str, instead: str) -> None:
    for name in ("audio", "text"):
        tower = getattr(model, name)
        if not layer_stacks(tower):
            encoder = type(getattr(tower, "encoder", tower)).__name__
            raise RecipeError(
                f"`{option}` works on the layers of the encoders `beats`, `bert`, `hf_audio` and "
                f"`hf_text`, and the {name} encoder of this run, {encoder}, has none of them; set "
                f"`{instead}`."
            )
