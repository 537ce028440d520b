"""What the processes of a run agree on: a result of the first one, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fairseq2.device import Device
from fairseq2.gang import Gangs, all_sum
from fairseq2.recipe.error import RecipeError

from atr_moco_plugin.distributed import gather_values, process_index
from atr_moco_plugin.errors import InputError

ResultT = TypeVar("ResultT")

_EVERY = 10


def from_first(make: Callable[[], ResultT], device: Device) -> ResultT:
    """Call a function on the first process and give its result to all of them.

    Files are read so: another process might not see yet what the first has just written.

    Args:
        make: its result must be of JSON's types.
        device: where the process group exchanges tensors.

    Raises:
        InputError: on every process, where the function raises it or fairseq2's ``RecipeError``
            on the first.
    """
    result: ResultT | None = None
    problem: str | None = None
    if process_index() == 0:
        try:
            result = make()
        except (InputError, RecipeError, OSError) as ex:
            problem = str(ex)
    result, problem = gather_values((result, problem), device)[0]
    if problem is not None:
        raise InputError(problem)
    return result


class StopRequest:
    """Whether the run was asked to stop, agreed on by all processes.

    A signal reaches the processes of a run between different steps of theirs; each stopping at its
    own would leave the others waiting for it.

    Args:
        gangs: the processes.
    """

    def __init__(self, gangs: Gangs) -> None:
        self._gang = gangs.root
        self._asked = False
        self._calls = 0

    def ask(self) -> None:
        """Ask for a stop; a signal handler may call it, in one process or in all."""
        self._asked = True

    def agreed(self) -> bool:
        """Whether the run stops now.

        Every process calls it once a step. Several processes ask each other in every tenth call,
        so the answer changes only then.
        """
        if self._gang.size == 1:
            return self._asked
        self._calls += 1
        return self._calls % _EVERY == 0 and int(all_sum(self._gang, int(self._asked))) > 0
