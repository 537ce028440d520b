"""Calling a function again with the same random numbers of Python and NumPy.

A checkpoint of PyTorch keeps the states of PyTorch's generators alone, and speech encoders of
transformers draw their masks with NumPy.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

ResultT = TypeVar("ResultT")


class SameDraws(Generic[ResultT]):
    """A function whose further calls draw what the first one drew.

    Args:
        function: called with the arguments of each call.
    """

    def __init__(self, function: Callable[..., ResultT]) -> None:
        self._function = function
        self._states: Any = None

    def __call__(self, *args: Any) -> ResultT:
        now = _draw_states()
        if self._states is None:
            self._states = now
            return self._function(*args)
        _set_draw_states(self._states)
        try:
            return self._function(*args)
        finally:
            _set_draw_states(now)


def _draw_states() -> Any:
    return random.getstate(), np.random.get_state()


def _set_draw_states(states: Any) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
