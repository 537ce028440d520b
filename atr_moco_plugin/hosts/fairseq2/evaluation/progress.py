"""How far a long step is, on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fairseq2.logging import log
from fairseq2.utils.progress import NOOP_PROGRESS_REPORTER, ProgressReporter

from atr_moco_plugin.evaluation.encode import Advance
from atr_moco_plugin.io.stdout import duration

_QUIET_SECONDS = 10.0
"""Lines in a log are at least this far apart."""


@contextmanager
def progress(
    reporter: ProgressReporter, name: str, total: int, *, quiet: bool = False
) -> Iterator[Advance]:
    """Show how far something is and how long it still takes: as a bar on a terminal, else as a
    line in the log every tenth of the way, at most one in ten seconds.

    Args:
        reporter: draws the bar.
        name: what is done.
        total: number of items.
        quiet: leave the lines out, as on all processes but one.
    """
    lines = not quiet and (reporter is NOOP_PROGRESS_REPORTER or not sys.stderr.isatty())
    start = last = time.monotonic()
    done = said = 0
    with reporter.create_task(name, total) as task:

        def advance(items: int) -> None:
            nonlocal done, said, last
            done += items
            task.step(items)
            now, tenth = time.monotonic(), 10 * done // max(total, 1)
            if lines and tenth > said and now - last >= _QUIET_SECONDS:
                left = (now - start) / done * (total - done)
                log.info("{}: {:,} of {:,}, {} left.", name, done, total, duration(left))
                said, last = tenth, now

        yield advance
