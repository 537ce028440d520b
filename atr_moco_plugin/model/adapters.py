"""Low-rank adapters (LoRA, Hu et al. 2022, https://arxiv.org/abs/2106.09685) in an encoder.

An adapted linear layer computes ``W x + alpha / rank * B A x``. ``W`` and everything else of the
encoder stand still, ``A`` and ``B`` train, and ``B`` starts at 0, so that at first nothing
changes::

    add_adapters(model.audio, AdapterConfig(lora=LoraConfig(rank=8)))   # needs peft
    ...
    merge_adapters(model)      # plain layers again, with what was trained in them

The layers are those of peft. The names of their weights in a ``state_dict`` are peft's too:
``q_proj.base_layer.weight``, ``q_proj.lora_A.default.weight``, ``q_proj.lora_B.default.weight``.
An encoder has one buffer more, ``adapter_scale``, the factor ``alpha / rank``, so that a
checkpoint can be merged, and compared, without anything beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.model.adapter_targets import find_targets
from atr_moco_plugin.model.config import AdapterConfig, LoraConfig
from atr_moco_plugin.model.freezing import FreezableTower, is_adapted
from atr_moco_plugin.model.retrieval_model import RetrievalModel
from atr_moco_plugin.tensors.internals import unwrapped_name

SCALE = "adapter_scale"
_ADAPTER = "default"  # peft's name of it
_A, _B = (f".lora_{x}.{_ADAPTER}.weight" for x in "AB")
_BASE = ".base_layer."
_STILL = "frozen_beside_adapters"


def add_adapters(tower: FreezableTower, config: AdapterConfig, name: str = "adapter") -> None:
    """Put an adapter beside linear layers of a tower's encoder, and freeze the encoder's own
    weights; pooling and projection go on training.

    Modules of the encoder without an adapter in them stay in eval mode. Call it after pretrained
    weights are loaded and after :func:`~atr_moco_plugin.model.freeze_encoder`, whose frozen layers
    get no adapters, and before momentum copies and optimizers are made. A plain ``state_dict``
    still loads: the new adapters then keep their weights.

    Args:
        tower: with an ``encoder``; one of your own derives from
            :class:`~atr_moco_plugin.model.freezing.FreezableTower`.
        config: which layers, and how large.
        name: of the option, for messages.

    Raises:
        InputError: peft is missing, a target matches no linear layer that is not frozen, or the
            encoder has adapters already.
    """
    encoder = tower.encoder
    if any(map(is_adapted, encoder.modules())):
        raise InputError(f"`{name}`: the encoder has adapters already; merge them first.")
    lora = config.lora
    targets = find_targets(tower, lora.targets, f"{name}.lora")
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise InputError(
            f"`{name}` needs the package peft: pip install 'atr-moco-plugin[peft]'"
        ) from error
    options = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # only divided by the rank
        lora_dropout=lora.dropout,
        # A pattern and no list: names of a list match the ends of others too.
        target_modules="|".join(map(re.escape, targets)),
    )
    trained = {id(p) for p in encoder.parameters() if p.requires_grad}
    named = {unwrapped_name(x): p for x, p in encoder.named_parameters()}
    inject_adapter_in_model(options, encoder, _ADAPTER)
    still = {x for x, p in named.items() if id(p) in trained and not p.requires_grad}
    setattr(encoder, _STILL, still)
    device = next(encoder.parameters()).device
    encoder.register_buffer(SCALE, torch.tensor(_scale(lora), device=device))
    encoder.register_load_state_dict_pre_hook(_take_plain_weights)
    tower.train(tower.training)


def _check_one_each(module: nn.Module) -> None:
    owners: dict[Any, nn.Module] = {}
    for layer in module.modules():
        base: Any = layer.base_layer if is_adapted(layer) else None
        if base is not None and owners.setdefault(base.weight, layer) is not layer:
            raise InputError(
                f"{type(module).__name__} has two adapters on one weight, as a criterion with "
                "momentum copies has: give `merge_adapters` the model alone, `criterion.model`."
            )


def merge_adapters(module: nn.Module) -> None:
    """Make adapted layers plain again, in place, with what their adapters have learned. What stood
    still for the adapters' sake trains again.

    Args:
        module: a model, or any part of one. Without adapters it stays as it is. Optimizers and
            momentum copies that were made before do not go with it any more.

    Raises:
        InputError: for two adapters on one weight, as a criterion with momentum copies has, which
            share what stands still: both would be added to it.
    """
    _check_one_each(module)
    done = set()
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if not is_adapted(layer):
                continue
            base: Any = layer.base_layer
            if layer not in done:  # shared layers have two parents
                done.add(layer)
                with torch.no_grad():
                    base.weight.copy_(_merged(base.weight, *_factors(layer)))
            parent.register_module(name, base)
    for part in module.modules():
        if SCALE in dict(part.named_buffers(recurse=False)):
            delattr(part, SCALE)
            delattr(part, "peft_config")  # peft's note of what it has put in
            for name, p in part.named_parameters():
                if unwrapped_name(name) in getattr(part, _STILL):
                    p.requires_grad_(True)
            delattr(part, _STILL)
    for part in module.modules():
        if isinstance(part, RetrievalModel):
            part.note_frozen()
            part.config = None if part.config is None else part.config.without_adapters()


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``state_dict`` with its adapters merged, under the names of a plain model.

    Args:
        state: of a model with adapters, or without, which comes back as it is.
    """
    plain = {}
    for name, tensor in state.items():
        layer, base, parameter = name.rpartition(_BASE)
        if name.endswith((_A, _B)) or name.rpartition(".")[2] == SCALE:
            continue
        if base and parameter == "weight" and layer + _A in state:
            factors = state[layer + _A], state[layer + _B], _scale_in(state, layer)
            tensor = _merged(tensor, *factors)
        plain[f"{layer}.{parameter}" if base else name] = tensor
    return plain


def check_same_adapters(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Refuse the checkpoint of a run with other adapters, or with none where there are some.

    Args:
        module: what the state is for.
        state: names to tensors, some of which are for the module.
        prefix: what the names of those begin with.

    Raises:
        InputError: naming what differs.
    """
    here = {prefix + name for name in module.state_dict() if name.endswith((_A, SCALE))}
    there = {name for name in state if name.startswith(prefix) and name.endswith((_A, SCALE))}
    if here != there:
        only = "the checkpoint has and the model has not" if there - here else (
            "the model has and the checkpoint has not"
        )  # fmt: skip
        different = (there - here) or (here - there)
        names = listed(sorted(x.removesuffix(_A).removeprefix(prefix) for x in different))
        raise InputError(
            f"A run cannot go on with other adapters: {only} those of {names}; give it the "
            "`adapter` that it began with, or start a new run from its weights."
        )


def check_used(tower: FreezableTower, inputs: Mapping[str, Any], name: str = "adapter") -> None:
    """Refuse adapters that a pass leaves out, which would learn nothing.

    Args:
        tower: with adapters in its encoder. One on the meta device is not looked at.
        inputs: keyword arguments of it.
        name: of the option, for messages.

    Raises:
        InputError: the encoder takes the weights of an adapted layer and does not call it, as the
            attention of WavLM does.
    """
    if any(parameter.is_meta for parameter in tower.parameters()):
        return  # it cannot be called yet
    adapted = {x: layer for x, layer in tower.encoder.named_modules() if is_adapted(layer)}
    unused = set(adapted)

    def note(name: str, *_: Any) -> None:
        unused.discard(name)

    hooks = [layer.register_forward_hook(partial(note, x)) for x, layer in adapted.items()]
    training = tower.training
    try:
        with torch.no_grad():
            tower.eval()(**inputs)
    finally:
        tower.train(training)
        for hook in hooks:
            hook.remove()
    if unused:
        raise InputError(
            f"`{name}.lora` adapts {listed(sorted(unused))}, whose weights the encoder "
            f"{type(tower.encoder).__name__} uses without calling the layer, so that an adapter "
            "would do nothing: name other layers in `targets`, such as those of the feed-forward "
            "blocks."
        )


def _scale(lora: LoraConfig) -> float:
    return lora.alpha / lora.rank


def _factors(layer: Any) -> tuple[Tensor, Tensor, float]:
    scale = layer.scaling[_ADAPTER]
    return layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight, scale


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``W + scale * B A`` in float32, in the dtype of ``W``."""
    return (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)


def _scale_in(state: Mapping[str, Tensor], layer: str) -> float:
    """The factor of the encoder that a layer is in."""
    place = layer
    while place:
        place = place.rpartition(".")[0]
        found = state.get(f"{place}.{SCALE}" if place else SCALE)
        if found is not None:
            return float(found)
    raise InputError(
        f"The adapter of {layer} has no `{SCALE}` beside it, so that it cannot be merged; it was "
        "not made by this package."
    )


def _take_plain_weights(encoder: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A pre-hook of ``load_state_dict``: give the names of adapted layers to a plain state, and
    refuse adapters of another size."""
    adapted = {x: layer for x, layer in encoder.named_modules() if is_adapted(layer)}
    if not adapted:  # merged since
        return
    if prefix + SCALE in state:
        _check_size(encoder, adapted, state, prefix)
        return
    own = encoder.state_dict()
    for name in own:
        layer, base, parameter = name.rpartition(_BASE)
        if base and layer in adapted and f"{prefix}{layer}.{parameter}" in state:
            state[prefix + name] = state.pop(f"{prefix}{layer}.{parameter}")
        elif name.endswith((_A, _B, SCALE)):
            state[prefix + name] = own[name]


def _check_size(encoder: Any, adapted: Mapping[str, Any], state: Any, prefix: str) -> None:
    scale, own = float(state[prefix + SCALE]), float(encoder.adapter_scale)
    problem = None
    if abs(scale - own) > 1e-2 * own:  # it may have been saved in bfloat16
        problem = f"`alpha / rank` is {own:g} here and {scale:g} there"
    for name, layer in adapted.items():
        found = state.get(prefix + name + _A)
        if found is not None and found.shape != layer.lora_A[_ADAPTER].weight.shape:
            problem = f"`rank` is {len(layer.lora_A[_ADAPTER].weight)} here and {len(found)} there"
    if problem is not None:
        raise InputError(
            f"These weights have other adapters than the model: {problem}; give the `adapter` that "
            "they were trained with."
        )
