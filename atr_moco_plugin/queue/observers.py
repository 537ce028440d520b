"""Telling others, such as the running moments of the rank, when the rows of a queue change."""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakSet

from torch import Tensor

from atr_moco_plugin.tensors.float32 import StaysFloat32


class QueueObserver(Protocol):
    """Receives the changes of a queue, see :meth:`ObservedQueue.add_observer`."""

    def rows_written(self, queue: ObservedQueue, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """A batch was written.

        Args:
            queue: the queue, which holds the new rows already.
            rows: ``[n]`` int64, indices of the rows.
            old: ``[n, d]`` float32, the rows before; zeros where the queue was not filled yet.
            new: ``[n, d]`` float32, the rows now.
        """

    def restart(self) -> None:
        """Start again from the present rows.

        The queue calls it when all rows changed or moved, and when it saves its state. A run that
        resumes from that state has the rows and nothing else. The run that goes on starts from the
        rows too, or the two would differ in the last bits.
        """


class ObservedQueue(StaysFloat32):
    """A queue that tells its observers of changes.

    Attributes:
        embeddings: ``[max_size, d]`` float32, all rows.
        size: rows it holds when it is full, at present.
    """

    embeddings: Tensor
    size: int

    def __init__(self) -> None:
        super().__init__()
        self._observers: WeakSet[QueueObserver] = WeakSet()

    def add_observer(self, observer: QueueObserver) -> None:
        """Tell an observer of every change from now on, for as long as it lives.

        Observers are not part of the state, and a copied or unpickled queue has none.
        """
        self._observers.add(observer)

    def _restart_observers(self) -> None:
        for observer in self._observers:
            observer.restart()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_observers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._observers = WeakSet()
