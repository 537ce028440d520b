"""Makes runs, some at a time, each as soon as those that it needs are finished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from benchmarks.negatives.plan import Run, ready


class Workers:
    """Works through runs in their order.

    Args:
        runs: those that are not finished, the most wanted first.
        make: makes one; an exception means that it failed.
        say: told what begins and ends.

    Attributes:
        failed: the runs that failed, with the reason, and those that need one of them.
    """

    def __init__(
        self, runs: Sequence[Run], make: Callable[[Run], object], say: Callable[[str], None]
    ) -> None:
        self._waiting = list(runs)
        self._unfinished = set(runs)
        self._make, self._say = make, say
        self._changed = threading.Condition()
        self._stopped = False
        self.failed: dict[Run, str] = {}

    def work(self, jobs: int) -> None:
        """Make all runs, ``jobs`` at a time; an interrupt ends it when those at work have ended."""
        threads = [threading.Thread(target=self._work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            # The runs at work get the interrupt too, and save.
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()
            raise

    def _work(self) -> None:
        while (run := self._next()) is not None:
            self._say(f"{run.name} begins.")
            reason = None
            try:
                self._make(run)
            except Exception as ex:  # one that fails does not end the others
                reason = f"{type(ex).__name__}: {ex}"
            with self._changed:
                if self._stopped and reason is not None:
                    return
                if reason is not None:
                    self.failed[run] = reason
                self._unfinished.discard(run)
                self._changed.notify_all()
            self._say(f"{run.name} {'is finished' if reason is None else 'failed: ' + reason}.")

    def _next(self) -> Run | None:
        with self._changed:
            while self._waiting and not self._stopped:
                run = next(ready(self._waiting, self._unfinished), None)
                if run is not None:
                    self._waiting.remove(run)
                    return run
                self._changed.wait()
            return None
