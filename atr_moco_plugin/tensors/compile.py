"""What ``torch.compile`` leaves out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from atr_moco_plugin.tensors.internals import compiler_is_imported

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")


def not_compiled(function: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
    """Run a function as it is written where ``torch.compile`` compiles what calls it.

    What it reads on the host, such as how full a queue is, is another in every step, and a graph
    holds for one value alone.
    """

    @wraps(function)
    def call(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        # `torch.compiler.disable` imports the compiler.
        if not compiler_is_imported():
            return function(*args, **kwargs)
        return torch.compiler.disable(function)(*args, **kwargs)

    return call
