"""Momentum copies: an exponential moving average (EMA) of a module's weights.

What is frozen is not copied: the modules of a copy have the very parameters of the online ones, so
that there is one set of them, and a copy of a frozen encoder holds next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.contracts import Module
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.tensors.float32 import StaysFloat32
from atr_moco_plugin.tensors.internals import lerp_all_, unwrapped_name
from atr_moco_plugin.tensors.nests import map_tensors


class MomentumCopy(StaysFloat32):
    """Float32 EMA of an online module, always in eval mode and never with a gradient.

    ``xi <- m * xi + (1 - m) * theta`` (MoCo, He et al. 2020, eq. 2). Buffers are copied as they
    are. :meth:`update` is explicit, once an optimizer step, so that gradient accumulation,
    activation checkpointing and validation passes do not move the average.

    Float32 parameters without ``requires_grad`` are shared with the online module and not copied.
    One that begins to train, or changes its dtype, gets a copy of its own at the next
    :meth:`start`. Sharded by FSDP, the copy has shards of its own, which are equal.

    Args:
        online: the module to average. The copy does not keep it, or its parameters would be
            registered twice; :meth:`update` gets it again.
    """

    module: Module

    def __init__(self, online: Module) -> None:
        super().__init__()
        # What `deepcopy` has copied already, it takes from here; and it writes into it.
        copied = {id(p): p for p in online.parameters() if _can_be_shared(p)}
        self._shares = bool(copied)
        self.module = deepcopy(online, copied).float().requires_grad_(False).eval()
        self._has_no_weights = False  # after `reset_parameters`, until the next copy or load
        self.register_load_state_dict_post_hook(_has_weights)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Stay in eval mode: dropout in the copy would put noise into the queue."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the copied module, without a gradient. Its input is turned to float32, for an online
        module in another dtype gets it in that one."""
        return self.module(*map_tensors(_float32, args), **map_tensors(_float32, kwargs))

    @torch.no_grad()
    def update(self, online: Module, momentum: float) -> None:
        """Move the average towards the online weights, in place.

        Args:
            online: the module that was copied.
            momentum: m in ``[0, 1]``; 1 leaves the copy as it is, 0 copies.

        Raises:
            InputError: the online module has other weights or buffers than when it was copied, or
                some of another shape.
        """
        if self._has_no_weights:
            self._has_no_weights, momentum = False, 0.0
            self._share(online)
        pairs = _pairs(_parameters(self.module), _parameters(online))
        weights = [(average, x) for average, x in pairs if average is not x]
        copied = _pairs(_buffers(self.module), _buffers(online))
        if momentum > 0 and weights:
            # In place and grouped: the storage stays the same for sharded and fused views, and the
            # cost is the memory traffic rather than one kernel a parameter.
            averages = [average for average, _ in weights]
            targets = [x.detach().to(average.dtype) for average, x in weights]
            lerp_all_(averages, targets, 1.0 - momentum)
        else:  # an interpolation would keep a NaN
            copied += weights
        for copy, source in copied:
            copy.copy_(source)

    def reset_parameters(self) -> None:
        """Copy the online module at the next :meth:`start` or :meth:`update`, whatever the
        momentum: for a copy that was made on the device ``meta`` and moved with ``to_empty``."""
        self._has_no_weights = True

    def start(self, online: Module) -> None:
        """Copy the online module if the copy has no weights yet: after :meth:`reset_parameters`,
        unless a state was loaded since. And copy what is shared and not frozen any more.

        Args:
            online: the module that was copied.
        """
        if self._has_no_weights:
            self.update(online, momentum=0.0)
        if not self._shares:
            return
        trained = {id(p) for p in online.parameters() if not _can_be_shared(p)}
        own = {
            id(p): nn.Parameter(p.detach().float().clone(), requires_grad=False)
            for p in self.module.parameters()
            if id(p) in trained
        }
        if own:
            for module, name, p in _places(self.module):
                setattr(module, name, own.get(id(p), p))

    def shared_names(self, online: Module) -> set[str]:
        """Names of the parameters that are those of the online module, as ``module`` has them.

        Args:
            online: the module that was copied.
        """
        ids = {id(p) for p in online.parameters()}
        return {name for name, p in _parameters(self.module).items() if id(p) in ids}

    def _share(self, online: Module) -> None:
        """Share again what was shared before ``to_empty``, which makes new parameters."""
        frozen = {name: p for name, p in _parameters(online).items() if _can_be_shared(p)}
        self._shares = bool(frozen)
        names = {id(p): name for name, p in _parameters(self.module).items()}
        for module, name, p in _places(self.module):
            setattr(module, name, frozen.get(names[id(p)], p))


def _float32(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x


def _has_weights(copy: MomentumCopy, _: Any) -> None:
    copy._has_no_weights = False


def _can_be_shared(parameter: nn.Parameter) -> bool:
    # Not those of FSDP, whose units manage the ones that they have.
    whole = not hasattr(parameter, "to_local")
    return whole and not parameter.requires_grad and parameter.dtype == torch.float32


def _places(module: Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every place that a parameter stands in: the module, the name there, and the parameter."""
    return [
        (owner, name, p)
        for owner in module.modules()
        for name, p in owner.named_parameters(recurse=False)
    ]


def _parameters(module: Module) -> dict[str, nn.Parameter]:
    return {unwrapped_name(name): x for name, x in module.named_parameters()}


def _buffers(module: Module) -> dict[str, Tensor]:
    return {unwrapped_name(name): x for name, x in module.named_buffers()}


def _pairs(copy: Mapping[str, Tensor], online: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each tensor of a copy with the online one of the same name."""
    differences = {
        "new are": [x for x in online if x not in copy],
        "missing are": [x for x in copy if x not in online],
        "of another shape are": [
            f"{name} {list(online[name].shape)} (was {list(x.shape)})"
            for name, x in copy.items()
            if name in online and x.shape != online[name].shape
        ],
    }
    parts = [f"{kind} {listed(names)}" for kind, names in differences.items() if names]
    if parts:
        raise InputError(
            f"The tower is not the one that its momentum copy was made of: {'; '.join(parts)}. "
            "Change the model before the criterion is made around it."
        )
    return [(x, online[name]) for name, x in copy.items()]
