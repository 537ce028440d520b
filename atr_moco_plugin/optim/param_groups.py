"""Parameter groups: weight decay or none, and a learning rate for each part of the model."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from atr_moco_plugin.contracts import Module
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.internals import is_weight_norm

_PARTS = ("audio", "text")
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(
    criterion: Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    audio_lr: float | None = None,
    text_lr: float | None = None,
    temperature_lr: float | None = None,
    layer_decay: float = 1.0,
    head_lr_scale: float = 1.0,
    preset: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer.

    Weight decay leaves out the temperature (ALBEF's intent; BLIP decays its own), biases, weights
    of norms, gains of weight norms, parameters of one dimension, and the parameters that a module
    names in ``no_weight_decay() -> set[str]``, as in timm. Frozen parameters are in no group.

    With ``layer_decay`` below 1 a layer of an encoder moves slower the deeper it lies: its rate is
    that of its encoder times ``layer_decay ** (L + 1 - i)`` for layer i = 1 to L, and i = 0 for
    everything in no layer (BEiT, Bao et al. 2022). Parameters outside of the encoders are new and
    keep their rate. The encoder, or else its tower, publishes its ``layers`` from input to output;
    the ``text_layers`` that a head has taken out of the text encoder come after its own.

    A rate or ``layer_decay`` for what is not trained is warned of.

    Args:
        criterion: a criterion of this package around its model.
        weight_decay: of weight matrices, embeddings and kernels.
        lr: learning rate of everything without one of its own; ``None`` leaves the optimizer's own
            to all groups.
        audio_lr: learning rate of the audio encoder, ``None`` for ``lr``.
        text_lr: learning rate of the text encoder, ``None`` for ``lr``.
        temperature_lr: learning rate of the temperature, ``None`` for ``lr``.
        layer_decay: in ``(0, 1]``.
        head_lr_scale: factor on ``lr`` for the matching head, without layers that it has taken from
            the text encoder; above 0.
        preset: names of rates that are a recipe's own, so that nobody is warned of them.

    Returns:
        Groups in the form of :class:`torch.optim.Optimizer`, none of them empty.

    Raises:
        InputError: ``layer_decay`` is out of range or an encoder publishes no layers for it, a rate
            of a part or a ``layer_decay`` comes without ``lr`` or with a wrapper of the criterion,
            or a rate is for an encoder that is not there.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"`layer_decay` is {layer_decay}, expected above 0 and at most 1.")
    own = {"audio": audio_lr, "text": text_lr}
    if not 0 < head_lr_scale < math.inf:
        raise InputError(f"`head_lr_scale` is {head_lr_scale}, expected above 0 and finite.")
    factors = {"layer_decay": layer_decay, "head_lr_scale": head_lr_scale}
    factors = {name: value for name, value in factors.items() if value != 1}
    if lr is None and (factors or any((*own.values(), temperature_lr))):
        raise InputError("`lr` is missing: learning rates of parts and factors on them need it.")

    trained = [p for p in criterion.parameters() if p.requires_grad]
    # By itself and not by its name, which a wrapper such as `torch.compile` changes.
    temperature = getattr(criterion, "temperature", None)
    if not hasattr(criterion, "model"):
        of_parts = {
            **{f"{part}_lr": rate for part, rate in own.items()},
            "temperature_lr": temperature_lr if temperature is None else None,
            **factors,
        }
        for option, value in of_parts.items():
            if value is not None:
                raise InputError(
                    f"`{option}` is {value}, but a {type(criterion).__name__} has no `model` with "
                    "parts: give `parameter_groups` the criterion and not its wrapper."
                )
    places = _places(criterion, own, layer_decay, head_lr_scale)
    moved = [places[id(p)] for p in trained if id(p) in places]
    trains = {place.part for place in moved}
    _warn_of_idle_rates({x: rate for x, rate in own.items() if f"{x}_lr" not in preset}, trains)
    if "head_lr_scale" in factors and "head" not in trains and "head_lr_scale" not in preset:
        warnings.warn(
            f"`head_lr_scale` is {head_lr_scale}, but no matching head is trained: it is for "
            "nothing. Leave it out, or train one.",
            stacklevel=2,
        )
    if layer_decay != 1 and all(place.scale == 1 for place in moved if place.part != "head"):
        warnings.warn(
            f"`layer_decay` is {layer_decay}, but nothing of either encoder is trained: it is for "
            "nothing. Leave it out, or train a part of an encoder.",
            stacklevel=2,
        )
    idle = temperature_lr is not None and all(p is not temperature for p in trained)
    if idle and "temperature_lr" not in preset:
        warnings.warn(
            f"`temperature_lr` is {temperature_lr}, but this {type(criterion).__name__} learns no "
            "temperature: the rate is for nothing. Leave it out, or set it to null.",
            stacklevel=2,
        )
    plain = _undecayed(criterion)
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = defaultdict(list)
    # Decayed groups first, so that there are always two or more in a fixed order.
    for parameter in sorted(trained, key=lambda p: id(p) in plain):
        rate = lr
        place = places.get(id(parameter))
        if parameter is temperature:
            rate = lr if temperature_lr is None else temperature_lr
        elif place is not None and own.get(place.part) is not None:
            rate = own[place.part]
        if rate is not None and place is not None:
            rate *= place.scale
        decay = 0.0 if id(parameter) in plain else weight_decay
        groups[decay, rate].append(parameter)
    return [
        {"params": params, "weight_decay": decay, **({} if rate is None else {"lr": rate})}
        for (decay, rate), params in groups.items()
    ]


def _warn_of_idle_rates(rates: dict[str, float | None], trained: set[str]) -> None:
    for part, rate in rates.items():
        if rate is not None and part not in trained:
            warnings.warn(
                f"`{part}_lr` is {rate}, but nothing of the {part} encoder is trained: the rate is "
                "for nothing. Leave it out, or train a part of the encoder.",
                stacklevel=3,
            )


def _undecayed(criterion: Module) -> set[int]:
    """Ids of the parameters without weight decay."""
    found = set()
    for module in criterion.modules():
        for name, p in module.named_parameters(recurse=False):
            gain = name == "weight_g" or (name == "original0" and is_weight_norm(module))
            if p.ndim <= 1 or name == "bias" or gain or isinstance(module, _NORMS):
                found.add(id(p))
        no_weight_decay: Callable[[], set[str]] | None = getattr(module, "no_weight_decay", None)
        if callable(no_weight_decay):
            named = dict(module.named_parameters())
            # timm's models also name parameters of their other configurations.
            found |= {id(named[x]) for x in no_weight_decay() if x in named}
    return found


@dataclass
class _Place:
    """Where a parameter of an encoder or of the matching head lies."""

    part: str
    scale: float = 1.0
    """Factor on the part's rate."""


def _places(
    criterion: Module, rates: dict[str, float | None], layer_decay: float, head_lr_scale: float
) -> dict[int, _Place]:
    """Id of each parameter of an encoder, or of the matching head, to its place."""
    model = getattr(criterion, "model", None)
    head = getattr(model, "head", None)
    places: dict[int, _Place] = {}
    if isinstance(head, nn.Module):
        places |= {id(p): _Place("head", head_lr_scale) for p in head.parameters()}
    for part in _PARTS:
        tower = getattr(model, part, None)
        encoder = getattr(tower, "encoder", None)
        if not isinstance(encoder, nn.Module):
            decayed = None if layer_decay == 1 else layer_decay
            for option, value in ((f"{part}_lr", rates[part]), ("layer_decay", decayed)):
                if value is not None:
                    raise InputError(
                        f"`{option}` is {value}, but the {part} tower, {type(tower).__name__}, has "
                        "no `encoder` that it could be for: leave it out, or call the tower's "
                        "encoder so."
                    )
            continue
        upper = getattr(head, "text_layers", None) if part == "text" else None
        modules = [encoder, *(upper or ())]
        places |= {id(p): _Place(part) for module in modules for p in module.parameters()}
        trained = any(p.requires_grad for p in encoder.parameters())
        if layer_decay == 1 or not (trained or upper):
            continue
        # A frozen encoder need not say which its layers are.
        own = _published(tower, encoder, part, layer_decay) if trained else ()
        layers = [*own, *(upper or ())]
        for p in encoder.parameters():
            places[id(p)].scale = layer_decay ** (len(layers) + 1)
        for above, layer in enumerate(reversed(layers), start=1):
            for p in layer.parameters():
                places[id(p)] = _Place(part, layer_decay**above)
    return places


def _published(
    tower: object, encoder: nn.Module, part: str, layer_decay: float
) -> Iterator[nn.Module]:
    """The layers of an encoder, from input to output."""
    own = {id(p) for p in encoder.parameters()}
    for owner in (encoder, tower):
        layers = getattr(owner, "layers", None)
        if not isinstance(layers, (list, tuple, nn.ModuleList, nn.Sequential)) or not len(layers):
            continue
        if all(isinstance(x, nn.Module) for x in layers) and all(
            id(p) in own for x in layers for p in x.parameters()
        ):
            return iter(layers)
    raise InputError(
        f"`layer_decay` is {layer_decay}, but the {part} encoder, {type(encoder).__name__}, does "
        "not say which its layers are, and all of it would move slower: give it an attribute "
        "`layers`, its layers from input to output (docs/plugins.md), or set `layer_decay` to 1."
    )
