"""Filling an index: only what is new, changed or gone since the last time.

``walk`` and ``sources`` say what is on disk, ``plan`` what there is to do, ``reading`` and
``embedding`` do it, ``ranks`` shares it among processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from tqdm import tqdm

from atr_moco_plugin.distributed import process_index, world_size
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.embedding import Outcome, embed_groups
from atr_moco_plugin.search.names import shown_name
from atr_moco_plugin.search.plan import Plan, in_groups, make_plan
from atr_moco_plugin.search.ranks import collect, share_tasks
from atr_moco_plugin.search.sources import Listing
from atr_moco_plugin.search.store import IndexInfo, Store

_WRITE_SHARE = 1 / 30
"""Most of the time that goes to writing: each write waits for the disk, so groups of a fast model
are written together."""


@dataclass(kw_only=True)
class Report:
    """What :func:`build` has done; numbers are of recordings.

    Attributes:
        new: that were not in the index.
        changed: whose content is another, or that were tried again.
        touched: whose file is newer and has the same content.
        unchanged: that are as they were.
        gone: that were removed, because they are not there any more.
        kept: names of those that are not there, as on a disk that is not mounted, and were kept.
        broken: name and reason of all that cannot be read; they are tried again when they change.
        unsettled: name and reason of files that changed or could not be opened, and of folders and
            tars that could not be read; they are tried again the next time.
        other: suffix to the number of files that were passed over.
        windows: that were embedded.
        seconds: of sound that were embedded.
        wall_seconds: that it took.
        interrupted: whether it was asked to stop before the end.
    """

    new: int = 0
    changed: int = 0
    touched: int = 0
    unchanged: int = 0
    gone: int = 0
    kept: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    unsettled: list[tuple[str, str]] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)
    windows: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    interrupted: bool = False


def index_info(retriever: AudioTextRetriever) -> IndexInfo:
    """What an index that a retriever fills says of itself."""
    return IndexInfo(
        model=retriever.name,
        fingerprint=retriever.fingerprint,
        embed_dim=retriever.embed_dim,
        sample_rate=retriever.sample_rate,
        window_seconds=retriever.window_seconds,
        hop_seconds=retriever.hop_seconds,
    )


def build(
    store: Store | None,
    retriever: AudioTextRetriever,
    listing: Listing | None,
    *,
    prune: bool = False,
    retry_broken: bool = False,
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    planned: Callable[[], object] = lambda: None,
    progress: bool = False,
) -> Report:
    """Bring an index up to date with a folder, a tar, a list or a table.

    A recording is put into the index together with its windows, in the order of the listing; some
    at once, and what is written stays. Broken recordings are put there without windows, so that
    they are not read again. Where several processes of a group call it, all embed and the first one
    writes.

    Args:
        store: the index, open for writing; None in all processes but the first.
        retriever: the model of the index.
        listing: what is on disk; None in all processes but the first.
        prune: see :func:`~atr_moco_plugin.search.plan.make_plan`.
        retry_broken: try again what could not be read, though it has not changed.
        threads: that decode; None takes one a core, at least 2 and at most 8.
        stop: asked now and then; where it says so, what is embedded is written, and that is all.
        planned: called in the first process once everything is listed, and so nothing of it will
            be refused, before the index is changed.
        progress: show a bar with the time left on standard error.

    Raises:
        InputError: if there is no sound, the index cannot be written, or another process has ended
            too early.
    """
    begin = time.monotonic()
    report = Report()
    plan = Plan()
    if store is not None and listing is not None:
        plan = make_plan(store, listing, prune=prune, retry_broken=retry_broken, stop=stop)
        planned()
        report.unchanged, report.gone = plan.unchanged, len(plan.gone)
        report.kept = [shown_name(*key) for key in plan.kept]
        report.broken = list(plan.broken)
        report.unsettled = list(listing.notes.problems)
        report.other = dict(listing.notes.other.most_common())
        if plan.gone:
            store.remove(plan.gone)
    tasks = share_tasks([] if stop() else plan.tasks)
    groups = list(in_groups(tasks, retriever.batch_size))
    bar = _Bar(sum(task.found.size for task in tasks), len(tasks), progress)
    own = embed_groups(
        groups[process_index() :: world_size()],
        retriever,
        threads=threads or max(2, min(8, os.cpu_count() or 1)),
        stop=stop,
        progress=bar.windows,
        proven=plan.unchanged > 0,
    )
    waiting: list[Outcome] = []
    written, due = time.monotonic(), 0.0
    with bar, closing(own):
        for _ in range(0, len(groups), world_size()):
            outcomes, interrupted = collect(next(own, []), retriever.embed_dim, stop=stop())
            bar.recordings(outcomes)
            waiting += outcomes
            start = time.monotonic()
            if interrupted or start - written > due:
                _put(store, waiting, report)
                waiting, written = [], time.monotonic()
                due = (written - start) / _WRITE_SHARE
            if interrupted:
                report.interrupted = True
                break
        _put(store, waiting, report)
    report.interrupted |= stop()
    report.wall_seconds = time.monotonic() - begin
    return report


class _Bar:
    """The bar, with the time left by bytes: recordings may be of any length."""

    def __init__(self, size: int, recordings: int, shown: bool) -> None:
        self._bar = tqdm(
            total=size,
            unit="B",
            unit_scale=True,
            desc="index",
            mininterval=0.5,
            disable=not (shown and recordings),
        )
        self._total, self._done, self._windows, self._told = recordings, 0, 0, 0.0

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def windows(self, number: int) -> None:
        """That many windows have been embedded, perhaps of a recording that goes on for hours."""
        self._windows += number
        if time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            self._show()

    def recordings(self, outcomes: Sequence[Outcome]) -> None:
        """These are in the index."""
        self._done += len(outcomes)
        self._show()
        self._bar.update(sum(outcome.task.found.size for outcome in outcomes))

    def _show(self) -> None:
        text = f"{self._done:,} of {self._total:,} recordings, {self._windows:,} windows"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(0)


def _put(store: Store | None, outcomes: Sequence[Outcome], report: Report) -> None:
    if store is None:
        return
    embedded = [x.embedded for x in outcomes if x.embedded is not None]
    times = {x.task.found.key: x.same_but_newer for x in outcomes if x.same_but_newer is not None}
    if embedded:
        store.put(embedded)
    if times:
        store.touch(times)
    for outcome in outcomes:
        name = outcome.task.found.name
        if outcome.embedded is None and outcome.same_but_newer is None:
            report.unsettled.append((name, outcome.problem))
        elif outcome.problem:
            report.broken.append((name, outcome.problem))
        elif outcome.embedded is None:
            report.touched += 1
        else:
            report.new += not outcome.task.known
            report.changed += outcome.task.known
            report.windows += len(outcome.embedded.spans)
            report.seconds += outcome.embedded.recording.seconds
