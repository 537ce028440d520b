"""Momentum copies: an exponential moving average (EMA) of a module's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch.nn import Module

from atr_moco_plugin.float32 import StaysFloat32


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
        """
        average = list(self.module.parameters())
        current = [p.detach().to(a.dtype) for p, a in zip(online.parameters(), average)]
        # In place and grouped: the storage stays the same for sharded and fused views, and the
        # cost is the memory traffic rather than one kernel a parameter.
        torch._foreach_lerp_(average, current, 1.0 - momentum)
        for copy, buffer in zip(self.module.buffers(), online.buffers()):
            copy.copy_(buffer)
