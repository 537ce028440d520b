"""A folder of outputs, made or completed by all processes of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from atr_moco_plugin.embedding_cache.content import MakeContent
from atr_moco_plugin.embedding_cache.index import (
    Index,
    check_same,
    missing_shards,
    read_index,
    shard_path,
    to_index,
    write_index,
)
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.embedding_cache.shards import write_shard
from atr_moco_plugin.embedding_cache.sizes import check_room, in_words
from atr_moco_plugin.embedding_cache.store import OutputStore
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.lock import FolderInUseError, FolderLock

ResultT = TypeVar("ResultT")
Say = Callable[[str], None]

_A_WHILE = 60.0
"""Seconds; processes that wait for the first one give up after some minutes."""


def call(make: Callable[[], ResultT]) -> ResultT:
    """The result of a function."""
    return make()


def raise_problem(problem: str | None) -> None:
    """Raise what went wrong, if anything did."""
    if problem is not None:
        raise InputError(problem)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, which share the writing; one process by default.

    Attributes:
        index: this process, in ``[0, count)``.
        count: processes.
        from_first: calls a function on the first process and gives its result, of JSON's types, to
            all; an ``InputError`` of it is raised by all.
        agree: called by each with what went wrong there, or ``None``; raises on all what went wrong
            anywhere, once all have come.
    """

    index: int = 0
    count: int = 1
    from_first: Callable[[Callable[[], Any]], Any] = call
    agree: Callable[[str | None], None] = raise_problem


@dataclass(frozen=True)
class Plan:
    """What is to be in a folder.

    Attributes:
        folder: the folder.
        what: of what, for messages, such as ``clips``.
        index: the index it is to have.
        names: of the items in their order.
        bytes_an_item: about what an item takes.
        outdated: which of the present shards are to be written again, given the folder's index and
            their numbers; raises where the folder is stale.
    """

    folder: Path
    what: str
    index: Index
    names: Sequence[str]
    bytes_an_item: float
    outdated: Callable[[Index, list[int]], list[int]] = lambda index, present: []


def build(plan: Plan, make: MakeContent, needed: Stage, ranks: Ranks, say: Say) -> OutputStore:
    """Open a folder of outputs, and write before what is missing of it.

    A folder that was interrupted goes on where it was, with any number of processes. While another
    run writes it, this one waits.

    Args:
        plan: what is to be in the folder.
        make: makes the content of a shard.
        needed: what is read of each output.
        ranks: the processes.
        say: told what is written and how much it takes, on the first process.

    Raises:
        InputError: on every process, if the folder is of another model, other data or other
            settings, the disk has no room, or anything cannot be encoded or written.
    """
    writing = _Writing(plan, say)
    try:
        state = None
        while state is None:  # each time soon, so that no process waits for long for the first one
            state = ranks.from_first(writing.begin)
        index, missing = to_index(state["index"]), state["missing"]
        problem = None
        try:
            for done, number in enumerate(missing[ranks.index :: ranks.count], start=1):
                content = make(index.items_of(number), index.stage)
                path = shard_path(plan.folder, number)
                write_shard(path, content, index.stage, index.crops, index.digest)
                if ranks.index == 0:
                    finished = min(done * ranks.count, len(missing))
                    say(
                        f"{plan.folder}: {finished} of {len(missing)} files of outputs are written."
                    )
        except (InputError, OSError) as ex:
            problem = str(ex)
        ranks.agree(problem)
    finally:
        writing.end()
    return OutputStore(plan.folder, index, plan.names, needed)


class _Writing:
    """The first process's part: it looks at the folder, and takes it while anything is written, so
    that a second run that starts meanwhile waits and then reads what the first one wrote."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan, self._say = plan, say
        self._lock: FolderLock | None = None
        self._waits = False

    def begin(self) -> dict[str, Any] | None:
        """The folder's index and the numbers of the shards to write; None where another run still
        has the folder after a while."""
        folder = self._plan.folder
        found, missing = self._look()
        if missing or found is None:
            size = self._size(found or self._plan.index, missing)
            check_room(folder, size)
            if not self._take(_A_WHILE):
                return None
            found, missing = self._look()  # it may have been written before it was free
        index = found or self._plan.index
        self._tell(index, missing)
        if found is None:
            write_index(folder, index)
        return {"index": asdict(index), "missing": missing}

    def end(self) -> None:
        """Let other runs have the folder."""
        if self._lock is not None:
            self._lock.release()

    def _look(self) -> tuple[Index | None, list[int]]:
        """The folder's index, where there is one, and the numbers of the shards to write."""
        folder, index = self._plan.folder, self._plan.index
        found = read_index(folder)
        if found is None:
            return None, list(range(index.num_shards))
        check_same(folder, found, index)
        missing = missing_shards(folder, found, verify=True)
        present = sorted(set(range(found.num_shards)) - set(missing))
        return found, sorted({*missing, *self._plan.outdated(found, present)})

    def _take(self, seconds: float) -> bool:
        """Take the folder, waiting for another run that has it; whether it was free in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._lock = FolderLock(self._plan.folder)
                return True
            except FolderInUseError as ex:
                if not self._waits:
                    self._waits = True
                    self._say(
                        f"{self._plan.folder} is being written by another run ({ex.holder}): this "
                        "one waits for it, and then reads what it has written."
                    )
                if time.monotonic() > end:
                    return False
            time.sleep(0.5)

    def _tell(self, index: Index, missing: list[int]) -> None:
        folder, what = self._plan.folder, self._plan.what
        if not missing:
            self._say(
                f"{folder} has the outputs of all {index.items:,} {what}: none of them is read or "
                "encoded."
            )
            return
        for path in (shard_path(folder, number) for number in missing):
            if path.exists():
                self._say(
                    f"{path} is written again: it is damaged, or has clips that could not be read "
                    "and can be now."
                )
        items = sum(len(index.items_of(number)) for number in missing)
        self._say(
            f"{folder}: the outputs of {items:,} of {index.items:,} {what} are written, "
            f"{index.stage}, width {index.width}, {index.crops} crop(s) of each; about "
            f"{in_words(self._size(index, missing))}."
        )

    def _size(self, index: Index, missing: list[int]) -> int:
        items = sum(len(index.items_of(number)) for number in missing)
        return round(items * self._plan.bytes_an_item)
