"""Integers stay integers while fairseq2 builds a model.

It builds one in a mode in which every new tensor without a ``dtype`` gets the model's type of
floats, ``torch.arange(3)`` and ``torch.tensor([1, 2])`` too. Modules of other packages, such as
those of transformers, number their positions with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")

_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor)
_INTEGERS = (torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices)


def keeping_integers(build: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
    """A function that builds a model, in which integer tensors are as torch makes them."""

    @wraps(build)
    def call(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        with _KeepIntegers():
            return build(*args, **kwargs)

    return call


class _KeepIntegers(TorchFunctionMode):
    """Says the ``dtype`` of what would be an integer or a bool; outer modes then leave it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is None and (dtype := _integer_type(func, args, kwargs)) is not None:
            kwargs["dtype"] = dtype
        return func(*args, **kwargs)


def _integer_type(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.dtype | None:
    if func in _INTEGERS:
        return torch.int64
    if func is torch.arange:
        limits = [*args, *(kwargs[x] for x in ("start", "end", "step") if x in kwargs)]
        return torch.int64 if all(isinstance(x, int) for x in limits) else None
    if func is torch.full:
        value = kwargs["fill_value"] if "fill_value" in kwargs else args[1]
    elif func in _FROM_DATA:
        value = args[0] if args else kwargs.get("data", kwargs.get("obj", kwargs.get("s")))
    else:
        return None
    if isinstance(value, Tensor):
        return value.dtype
    kind = np.asarray(value).dtype
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.empty(0, kind)).dtype if kind.kind in "iub" else None
    return {"b": torch.bool, "i": torch.int64}.get(kind.kind)
