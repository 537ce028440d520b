"""Freezing an encoder, or everything up to its N lowest layers.

For example, the audio encoder's six lowest layers, and all that comes before them, stand still::

    freeze_encoder(model.audio, 6)
    [p.requires_grad for p in model.audio.encoder.layers[6].parameters()]   # all True

What is frozen has ``requires_grad=False``, so that it takes no optimizer state, and stays in eval
mode whatever the mode of the model. It computes the same for a momentum copy, which shares it (see
:class:`~atr_moco_plugin.momentum.MomentumCopy`) and gets its outputs (``prepare`` of a tower).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.learned_distance import LearnedDistance
from atr_moco_plugin.tensors.float32 import unit_norm
from atr_moco_plugin.tensors.internals import unwrapped_name

Freeze = Literal["none", "all"] | int
"""``none``, ``all`` of an encoder, or the number of its lowest layers, with all that comes before
them (patches, embeddings, positions)."""


class FreezableTower(nn.Module):
    """A tower whose encoder may be frozen, wholly or in part.

    Attributes:
        frozen: what is, set by :func:`freeze_encoder`.
        frozen_names: of the parameters that it has frozen.
        distance: the last layer of a trained model that ranks by a learned distance.
    """

    encoder: Any
    distance: LearnedDistance | None
    frozen: Freeze = "none"

    frozen_names: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.distance = None

    def unit_vectors(self, projected: Tensor) -> Tensor:
        """What a tower returns of ``[B, d]`` projections: ``[B, d]`` unit-norm float32, or with
        ``distance`` ``[B, d + 4]``."""
        embeddings = unit_norm(projected)
        if self.distance is None:
            return embeddings
        vectors: Tensor = self.distance(embeddings)
        return vectors

    def train(self, mode: bool = True) -> FreezableTower:
        """Set the mode of everything that is not frozen: dropout would make the outputs of a frozen
        part others in every step."""
        super().train(mode)
        for module in frozen_modules(self):
            module.eval()
        return self

    @property
    def lower_layers(self) -> int | None:
        """How many layers ``prepare`` runs: the frozen ones of an encoder that offers
        ``lower``. ``None`` for none."""
        if isinstance(self.frozen, int) and hasattr(self.encoder, "lower"):
            return self.frozen
        return None

    def check_frozen(self) -> None:
        """Refuse to run a frozen part without a gradient that trains after all.

        Raises:
            InputError: ``requires_grad`` was set by hand.
        """
        if self.frozen == "none":
            return
        # Of what lies below the layers the first one stands for all: this is asked in every pass.
        parts = [self.encoder] if self.frozen == "all" else published_layers(self)[: self.frozen]
        still = chain(
            islice(self.encoder.parameters(), 1), (p for x in parts for p in x.parameters())
        )
        if any(p.requires_grad for p in still):
            raise InputError(
                f"The encoder {type(self.encoder).__name__} is frozen ({self.frozen}), but its "
                "parameters were set to `requires_grad` afterwards: unfreeze it with "
                "`freeze_encoder(tower, 'none')`, or freeze it again."
            )


def freeze_encoder(tower: FreezableTower, freeze: Freeze, name: str = "freeze") -> None:
    """Freeze a tower's encoder; pooling and projection go on training. What an earlier call has
    frozen trains again first.

    Call it before momentum copies and optimizers are made. Of an encoder without ``lower`` (see
    :class:`~atr_moco_plugin.contracts.AudioEncoder`) the N lowest layers are frozen with all that
    is registered before the last of them.

    Args:
        tower: with an ``encoder``, whose ``layers``, or the tower's own, count from the input.
        freeze: see :data:`Freeze`.
        name: of the option, for messages.

    Raises:
        InputError: the number is below 1 or beyond the encoder's layers, or the encoder does not
            say which its layers are.
    """
    check_freeze(freeze, name)
    if isinstance(freeze, int):
        _check_layers(tower, freeze, name)
    for key, parameter in tower.named_parameters():
        if unwrapped_name(key) in tower.frozen_names:
            parameter.requires_grad_(True)
    tower.frozen = freeze
    parameters = [p for module in frozen_modules(tower) for p in module.parameters()]
    if isinstance(freeze, int):
        # Learned positions and the like that stand beside the layers.
        for owner in _owners(tower.encoder, published_layers(tower)):
            parameters += owner.parameters(recurse=False)
    ids = {id(p) for p in parameters if p.requires_grad}
    named = tower.named_parameters()
    tower.frozen_names = frozenset(unwrapped_name(key) for key, p in named if id(p) in ids)
    for parameter in parameters:
        parameter.requires_grad_(False)
    tower.train(tower.training)


def freeze_towers(towers: Mapping[str, FreezableTower], freeze: Mapping[str, Freeze]) -> None:
    """:func:`freeze_encoder` by the names of towers.

    Args:
        towers: by name.
        freeze: what to freeze, by name; those that are not named stay as they are.

    Raises:
        InputError: as :func:`freeze_encoder`, or a name is of no tower.
    """
    for name, value in freeze.items():
        if name not in towers:
            raise InputError(f"`freeze` has {name!r}, expected {' and '.join(towers)}.")
        freeze_encoder(towers[name], value, f"freeze.{name}")


def check_freeze(freeze: object, name: str) -> None:
    """Refuse what is no :data:`Freeze`.

    Raises:
        InputError: naming the option.
    """
    number = isinstance(freeze, int) and not isinstance(freeze, bool) and freeze >= 1
    if freeze not in ("none", "all") and not number:
        raise InputError(
            f"`{name}` is {freeze!r}, expected none, all, or the number of lowest layers that "
            "stand still, 1 or more."
        )


def frozen_modules(tower: FreezableTower) -> list[nn.Module]:
    """The largest modules of a tower's encoder that stand still: those that
    :func:`freeze_encoder` was asked for, and beside adapters those with weights and no adapter."""
    if tower.frozen == "all":
        return [tower.encoder]
    beside = _beside_adapters(tower.encoder)
    if tower.frozen == "none":
        return beside
    layers = published_layers(tower)
    return beside + _lowest(tower.encoder, layers, int(tower.frozen), _inputs(tower))


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a layer with a low-rank adapter, as peft makes them."""
    return hasattr(module, "lora_A")


def _beside_adapters(encoder: nn.Module) -> list[nn.Module]:
    """The largest modules with weights and no adapter in them; none where there are no adapters."""
    if not any(map(is_adapted, encoder.modules())):
        return []
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if is_adapted(child):
                found.append(child.get_submodule("base_layer"))
            elif any(map(is_adapted, child.modules())):
                walk(child)
            elif any(True for _ in child.parameters()):
                found.append(child)

    walk(encoder)
    return found


def _lowest(
    encoder: nn.Module, layers: Sequence[nn.Module], count: int, inputs: Sequence[nn.Module]
) -> list[nn.Module]:
    """The largest modules of an encoder that lie no higher than its ``count`` lowest layers."""
    lower, upper = ({id(x) for x in part} for part in (layers[:count], layers[count:]))
    splits = hasattr(encoder, "lower")  # all else runs before the layers
    found: list[nn.Module] = []
    passed = 0

    def walk(module: nn.Module) -> None:
        nonlocal passed
        for child in module.children():
            if id(child) in lower:
                passed += 1
                found.append(child)
            elif any(id(x) in lower | upper for x in child.modules()):
                if id(child) not in upper:
                    walk(child)
            elif splits or passed < count or any(child is x for x in inputs):
                found.append(child)

    walk(encoder)
    return found


def _owners(encoder: nn.Module, layers: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules that layers stand in, directly or not."""
    ids = {id(x) for x in layers}
    return [
        module
        for module in encoder.modules()
        if id(module) not in ids and any(id(x) in ids for x in module.modules())
    ]


def published_layers(tower: nn.Module) -> Sequence[nn.Module]:
    """The layers of a tower's encoder, from input to output, as it or the tower publishes them;
    none where nobody says which they are."""
    for owner in (getattr(tower, "encoder", None), tower):
        layers = getattr(owner, "layers", None)
        if isinstance(layers, (list, tuple, nn.ModuleList, nn.Sequential)) and len(layers):
            return list(layers)
    return []


def _inputs(tower: FreezableTower) -> Sequence[nn.Module]:
    """Modules that run before the layers but are registered after them."""
    return getattr(tower, "input_modules", ())


def _check_layers(tower: FreezableTower, count: int, name: str) -> None:
    kind, layers = type(tower.encoder).__name__, published_layers(tower)
    if not layers:
        raise InputError(
            f"`{name}` is {count}, but the encoder {kind} does not say which its layers are: give "
            "it an attribute `layers`, its layers from input to output (docs/plugins.md), or "
            f"set `{name}` to all."
        )
    if count > len(layers):
        raise InputError(
            f"`{name}` is {count}, but the encoder {kind} has {len(layers)} layers (a head of the "
            f"kind albef takes the upper ones): set it to {len(layers)} or less, or to all."
        )
