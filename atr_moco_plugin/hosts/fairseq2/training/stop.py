"""A stop that was asked for from outside, such as before a job's time is up."""

from __future__ import annotations

from fairseq2.gang import Gangs, all_sum

_EVERY = 10


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
        """Ask for a stop; may be called in a signal handler, by one process or by all."""
        self._asked = True

    def agreed(self) -> bool:
        """Whether the run stops now. Every process calls it once a step; with several of them the
        answer changes in every tenth call only, which is when they ask each other."""
        if self._gang.size == 1:
            return self._asked
        self._calls += 1
        return self._calls % _EVERY == 0 and int(all_sum(self._gang, int(self._asked))) > 0
