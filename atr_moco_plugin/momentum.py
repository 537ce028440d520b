"""Momentum copies: an exponential moving average (EMA) of a module's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_PREFIX
from torch.nn import Module

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.float32 import StaysFloat32


class MomentumCopy(StaysFloat32):
    """Float32 EMA of one online module, always in eval mode and never with a gradient.

    ``xi <- m * xi + (1 - m) * theta`` (MoCo, He et al. 2020, eq. 2). Buffers are copied as they
    are. The update is explicit, :meth:`update` once an optimizer step, so that gradient
    accumulation, activation checkpointing and validation passes do not move the average.

    Args:
        online: the module to follow. It is deep-copied, and given again to :meth:`update` rather
            than kept, so that its parameters are not registered twice.
    """

    def __init__(self, online: Module) -> None:
        super().__init__()
        self.module = deepcopy(online).float().requires_grad_(False).eval()
        self._anew = False
        self.register_load_state_dict_post_hook(_keep_what_was_loaded)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Stay in eval mode: dropout in the copy would put noise into the queue."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the copied module returns, without a gradient."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, online: Module, momentum: float) -> None:
        """Move the average towards the online weights, in place.

        Args:
            online: the module this is a copy of.
            momentum: m in ``[0, 1]``; 1 leaves the copy as it is, 0 copies.

        Raises:
            InputError: the online module has other weights or buffers than when it was copied, or
                some of another shape.
        """
        if self._anew:
            self._anew, momentum = False, 0.0
        weights, buffers = _pairs(self.module, online)
        # In place and grouped: the storage stays the same for sharded and fused views, and the
        # cost is the memory traffic rather than one kernel a parameter.
        average = [copy for copy, _ in weights]
        current = [p.detach().to(copy.dtype) for copy, p in weights]
        if momentum > 0:
            torch._foreach_lerp_(average, current, 1.0 - momentum)
        # An interpolation would keep a NaN.
        copied = buffers if momentum > 0 else [*zip(average, current), *buffers]
        for copy, source in copied:
            copy.copy_(source)

    def reset_parameters(self) -> None:
        """Become the copy of the online module at the next :meth:`update`, whatever its momentum, or
        at :meth:`start`: for a copy that was made on the device ``meta`` and moved with
        ``to_empty``."""
        self._anew = True

    def start(self, online: Module) -> None:
        """Copy the online module where :meth:`reset_parameters` asked for it and no state was loaded
        since.

        Args:
            online: the module this is a copy of.
        """
        if self._anew:
            self.update(online, momentum=0.0)


Pairs = list[tuple[Tensor, Tensor]]
_WRAPPERS = (_CHECKPOINT_PREFIX, "_orig_mod.")
"""What activation checkpointing and ``torch.compile`` put into names."""


def _pairs(copy: Module, online: Module) -> tuple[Pairs, Pairs]:
    """Parameters and buffers of a copy, each with the online one of the same name."""
    found = []
    for named in ("named_parameters", "named_buffers"):
        own, other = _named(copy, named), _named(online, named)
        if own.keys() != other.keys() or any(own[x].shape != other[x].shape for x in own):
            raise InputError(_difference(own, other))
        found.append([(x, other[name]) for name, x in own.items()])
    return found[0], found[1]


def _named(module: Module, kind: str) -> dict[str, Tensor]:
    named = {}
    for name, x in getattr(module, kind)():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        named[name] = x
    return named


def _difference(copy: dict[str, Tensor], online: dict[str, Tensor]) -> str:
    both = [x for x in copy if x in online and copy[x].shape != online[x].shape]
    kinds = {
        "new are": [x for x in online if x not in copy],
        "missing are": [x for x in copy if x not in online],
        "of another shape are": [
            f"{x} {list(online[x].shape)} (was {list(copy[x].shape)})" for x in both
        ],
    }
    parts = (f"{kind} {_listed(names)}" for kind, names in kinds.items() if names)
    return (
        f"The tower is not the one that its momentum copy was made of: {'; '.join(parts)}. Change the "
        "model before the criterion is made around it."
    )


def _listed(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _keep_what_was_loaded(copy: MomentumCopy, _: Any) -> None:
    copy._anew = False
