"""Which pass over the training set it is: crops and captions are drawn for each."""

from __future__ import annotations

from itertools import count
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerState

from atr_moco_plugin.hosts.transformers.internals import saved_beside
from atr_moco_plugin.hosts.transformers.trainer.resume import OPTIONS, PASS


class Passes:
    """Numbers the passes of a training, from 0.

    ``Trainer`` says in ``state.epoch`` how far a training is. Of a stream, which has no length, it
    takes all steps to come for one pass, so its passes are counted, and the next checkpoints save
    the number.

    Args:
        state: of ``Trainer`` when the training begins, with what the checkpoint says.
    """

    def __init__(self, state: TrainerState) -> None:
        # A checkpoint without the number has the pass it was begun in before the point.
        before: int = saved_beside(state).get(OPTIONS, {}).get(PASS, int(state.epoch or 0))
        self._numbers = count(before)

    def begin(self, state: TrainerState, loader: DataLoader[Any] | None) -> int:
        """The number of a pass that begins.

        Args:
            state: of ``Trainer``.
            loader: of the training batches.
        """
        if loader is None or length_of(loader) is not None:
            # A fraction in a run that goes on within an epoch; its end may be rounded.
            return int((state.epoch or 0) + 1e-6)
        number: int = next(self._numbers)
        saved_beside(state).setdefault(OPTIONS, {})[PASS] = number
        return number


def length_of(loader: DataLoader[Any]) -> int | None:
    """Batches of a loader; ``None`` of a stream."""
    try:
        return len(loader)
    except TypeError:
        return None
