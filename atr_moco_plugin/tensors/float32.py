"""Keeping tensors in float32 when the model around them has another dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Module


def unit_norm(x: Tensor) -> Tensor:
    """``[B, d]`` -> rows of length 1, float32 whatever the autocast state."""
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(x.float(), dim=-1)


def in_float32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that moves tensors, as ``Module.to`` makes one, but keeps their dtypes."""

    def moved(x: Tensor) -> Tensor:
        y = fn(x)
        return y if y.dtype == x.dtype else x.to(y.device)

    return moved


@contextmanager
def full_products() -> Iterator[None]:
    """Context in which matrix products of float32 tensors are computed in float32, whatever the
    process allows. TF32 on CUDA keeps 10 bits of each factor and bfloat16 on a CPU 7, so a
    similarity over a temperature of 0.001 would be off by 0.5 and more.

    PyTorch keeps the choice for the whole process, so other threads have it too meanwhile. A
    backward pass uses the choice of its own time, see :func:`cosines`.
    """
    candidates: list[Any] = [
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "matmul", None),
    ]
    backends = [x for x in candidates if hasattr(x, "fp32_precision")]  # PyTorch 2.9
    before = [backend.fp32_precision for backend in backends]
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was chosen by backend, which leaves the older choice at its default
        legacy = "highest"
    if legacy == "highest" and all(precision in ("ieee", "none") for precision in before):
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, before, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Products of all rows of ``[B, d]`` and ``[M, d]``: ``[B, M]`` float32.

    Products and gradients are computed in float32, whatever the autocast state and
    :func:`torch.set_float32_matmul_precision`.
    """
    with torch.autocast(x.device.type, enabled=False):
        product: Tensor = _Cosines.apply(x.float(), y.float())
        return product


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        with full_products():
            return x @ y.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        with full_products():
            return (
                grad @ y if ctx.needs_input_grad[0] else None,
                grad.T @ x if ctx.needs_input_grad[1] else None,
            )


class StaysFloat32(Module):
    """A module that moves between devices but ignores ``.half()``, ``.bfloat16()`` and the like.

    An average with factor 0.995 does not move in bfloat16, and a similarity over a temperature of
    0.01 is off by 0.17 there.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> StaysFloat32:
        super()._apply(in_float32(fn), *args, **kwargs)  # type: ignore[no-untyped-call]
        return self
