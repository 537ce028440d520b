"""CUDA tensors that have a shape, a dtype and a device, on a machine without a GPU.

``FakeTensorMode`` gives them. Every operation that mixes devices or dtypes fails as it would on a
GPU, and :class:`Transfers` sees every place where host and device meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda:0")
# One for all tests: constants that a function keeps for a device are tensors of one mode.
_MODE = FakeTensorMode(allow_non_fake_inputs=True)
_WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
aten = torch.ops.aten


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make CUDA tensors. Page-locked memory and random numbers of a GPU take a driver, so a tensor
    is its own page-locked copy and generators are the host's."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        pytest.skip(f"torch {torch.__version__} asks the GPU's driver about fake tensors")
    generator = torch.Generator
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    select = torch._C._select_conv_backend
    monkeypatch.setattr(torch._C, "_select_conv_backend", lambda **x: select(**_as_float32(x)))
    with _MODE, _WithoutDriver():
        yield


def _as_float32(arguments: dict[str, Any]) -> dict[str, Any]:
    """The driver is asked whether it has bfloat16."""
    names = ("input", "weight", "bias")
    floats = {name: x.float() for name in names if (x := arguments.get(name)) is not None}
    return {**arguments, **floats}


def to_fake_cuda(module: nn.Module) -> None:
    """Replace all parameters and buffers by fake ones on the GPU. None asks for a gradient: its
    graph would ask the driver for the stream of every operation."""
    for part in module.modules():
        for name, x in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(fake(x, CUDA), requires_grad=False))
        for name, x in list(part.named_buffers(recurse=False)):
            setattr(part, name, fake(x, CUDA))


def fake(x: Tensor, device: torch.device | str = "cpu") -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=device)


class Transfers(TorchDispatchMode):
    """Notes where host and device meet.

    Attributes:
        seen: ``(operation, from, to, whether the host waits)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, first = func._schema.name, next((x for x in args if isinstance(x, Tensor)), None)
        if first is not None and first.device.type == "cuda":
            mask = name == "aten::index" and any(
                x is not None and x.dtype == torch.bool for x in args[1]
            )
            if name in _WAITS or mask:
                self.seen.append((name, "cuda", "cpu", True))
        found = func(*args, **kwargs)
        if name == "aten::copy_":
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            self._note(name, args[1], args[0], non_blocking)
        elif name == "aten::_to_copy" and first is not None:
            self._note(name, first, found, kwargs.get("non_blocking", False))
        return found

    def _note(self, name: str, source: Tensor, target: Tensor, non_blocking: bool) -> None:
        ends = source.device.type, target.device.type
        if ends[0] != ends[1]:
            self.seen.append((name, *ends, not non_blocking))


class _WithoutDriver(TorchFunctionMode):
    """What asks the driver before it comes to the mode: indexing, inversion, copies in place, a
    generator, and the choice of an attention kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return _item(*args)
        if func is Tensor.__setitem__:
            return _set_item(*args)
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        if func is Tensor.exponential_:
            return args[0]
        if func is Tensor.__invert__:
            return torch.bitwise_not(*args)
        if func is Tensor.copy_:
            return aten.copy_.default(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _item(x: Tensor, index: Any) -> Tensor:
    index = index if isinstance(index, tuple) else (index,)
    if any(i is Ellipsis for i in index):
        at = next(n for n, i in enumerate(index) if i is Ellipsis)
        missing = x.dim() - sum(i is not None for i in index) + 1
        index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
    dim, tensors = 0, []
    for i in index:
        if i is None:
            x = x.unsqueeze(dim)
        elif isinstance(i, slice):
            x = aten.slice.Tensor(x, dim, i.start, i.stop, i.step or 1)
        elif isinstance(i, Tensor):
            tensors += [None] * (dim - len(tensors)) + [i]
        else:
            x = x.select(dim, i)
            continue
        dim += 1
    return aten.index.Tensor(x, tensors) if tensors else x


def _set_item(x: Tensor, index: Any, value: Any) -> None:
    if isinstance(index, Tensor):
        x.index_put_((index,), value)
    elif isinstance(value, Tensor):
        aten.copy_.default(_item(x, index), value)
    else:
        _item(x, index).fill_(value)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    query, key, value = (x.to(dtype) for x in (query, key, value))
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.to(dtype)
    with torch.autocast("cuda", enabled=False):
        found: Tensor = aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p
        )[0]
    return found
