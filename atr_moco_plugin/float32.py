"""What stays in float32 when the model around it has another dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module


def unit_norm(x: Tensor) -> Tensor:
    """``[B, d]`` -> rows of length 1, float32 whatever the autocast state."""
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(x.float(), dim=-1)


def in_float32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that moves tensors, as ``Module.to`` makes one, without what it does to dtypes."""

    def moved(x: Tensor) -> Tensor:
        y = fn(x)
        return y if y.dtype == x.dtype else x.to(y.device)

    return moved


class StaysFloat32(Module):
    """A module that moves between devices but ignores ``.half()``, ``.bfloat16()`` and the like.

    An average with factor 0.995 does not move in bfloat16, and a similarity over a temperature of
    0.01 is off by 0.17 there.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> StaysFloat32:
        super()._apply(in_float32(fn), *args, **kwargs)
        return self
