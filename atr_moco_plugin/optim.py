"""Parameter groups: who is weight-decayed, and at which learning rate each part moves."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from torch import nn

from atr_moco_plugin.errors import InputError

_LAYER = re.compile(r"\blayers?\.(\d+)\.")
_STACKS = {
    "audio": ("model.audio.encoder.",),
    # An ALBEF head runs the upper layers that it took out of the text encoder.
    "text": ("model.text.encoder.", "model.head.layers."),
}


def parameter_groups(
    criterion: nn.Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    audio_lr: float | None = None,
    text_lr: float | None = None,
    temperature_lr: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """What to give an optimizer.

    The temperature, biases and normalisation weights are not weight-decayed (ALBEF's intent; BLIP
    decays its temperature), and what is frozen is left out. With ``layer_decay`` below 1 a layer
    of an encoder moves slower the deeper it lies: its rate is that of its encoder times
    ``layer_decay ** (L + 1 - i)`` for layer i = 1 to L, and i = 0 for everything before the first
    one (BEiT, Bao et al. 2022); what is not in an encoder is new and has no decay.

    Args:
        criterion: a criterion of this package around its model.
        weight_decay: of weight matrices, embeddings and kernels.
        lr: learning rate of everything without one of its own; ``None`` leaves the optimizer's own
            to all groups.
        audio_lr: learning rate of the audio encoder, ``None`` for ``lr``.
        text_lr: learning rate of the text encoder, ``None`` for ``lr``.
        temperature_lr: learning rate of the temperature, ``None`` for ``lr``.
        layer_decay: in ``(0, 1]``.

    Returns:
        Groups in the form of :class:`torch.optim.Optimizer`, none of them empty.

    Raises:
        ValueError: when ``layer_decay`` is out of range, or a rate of a part or a ``layer_decay``
            comes without ``lr``.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"`layer_decay` is {layer_decay}, expected above 0 and at most 1.")
    own = {"audio": audio_lr, "text": text_lr}
    if lr is None and (layer_decay != 1 or any((*own.values(), temperature_lr))):
        raise InputError("`lr` is missing: learning rates of parts and `layer_decay` need it.")

    trained = {name: p for name, p in criterion.named_parameters() if p.requires_grad}
    scales = _layer_scales(trained, layer_decay)
    groups: dict[tuple[float, float | None], list[nn.Parameter]] = defaultdict(list)
    # Decayed groups first, so that there are always two or more in a fixed order.
    for name, parameter in sorted(trained.items(), key=lambda item: item[1].ndim <= 1):
        rate = lr
        if name == "temperature":
            rate = lr if temperature_lr is None else temperature_lr
        elif (part := _stack(name)) is not None:
            rate = lr if own[part] is None else own[part]
        if rate is not None:
            rate *= scales.get(name, 1.0)
        groups[weight_decay if parameter.ndim > 1 else 0.0, rate].append(parameter)
    return [
        {"params": params, "weight_decay": decay, **({} if rate is None else {"lr": rate})}
        for (decay, rate), params in groups.items()
    ]


def _stack(name: str) -> str | None:
    """The encoder a parameter belongs to."""
    return next((part for part, prefixes in _STACKS.items() if name.startswith(prefixes)), None)


def _layer_scales(names: Any, layer_decay: float) -> dict[str, float]:
    """Factor on the rate of every parameter of an encoder."""
    if layer_decay == 1:
        return {}
    scales = {}
    for part, prefixes in _STACKS.items():
        depth, depths = 0, {}
        for prefix in prefixes:  # in the order they run
            below = depth
            for name in names:
                if name.startswith(prefix):
                    layer = _LAYER.search(name)
                    depths[name] = below + int(layer[1]) + 1 if layer else 0
                    depth = max(depth, depths[name])
        scales |= {name: layer_decay ** (depth + 1 - at) for name, at in depths.items()}
    return scales
