"""Keeping functions out of the graphs of ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from atr_moco_plugin.tensors.internals import compiler_is_imported

ArgumentsT = ParamSpec("ArgumentsT")
ResultT = TypeVar("ResultT")


def not_compiled(function: Callable[ArgumentsT, ResultT]) -> Callable[ArgumentsT, ResultT]:
    """Run a function as it is written, even where ``torch.compile`` compiles its caller.

    For functions that read a value on the host which changes in every step, such as the number of
    rows in a queue: a graph holds for one value alone.
    """

    @wraps(function)
    def call(*args: ArgumentsT.args, **kwargs: ArgumentsT.kwargs) -> ResultT:
        # `torch.compiler.disable` imports the compiler.
        if not compiler_is_imported():
            return function(*args, **kwargs)
        result: ResultT = torch.compiler.disable(function)(*args, **kwargs)
        return result

    return call
