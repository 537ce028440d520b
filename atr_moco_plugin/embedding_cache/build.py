"""A folder of outputs, made or completed by all processes of a run."""

from __future__ import annotations

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

ResultT = TypeVar("ResultT")
Say = Callable[[str], None]


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

    A folder that was interrupted goes on where it was, with any number of processes.

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
    state = ranks.from_first(lambda: _prepare(plan, say))
    index, missing = to_index(state["index"]), state["missing"]
    problem = None
    try:
        for done, number in enumerate(missing[ranks.index :: ranks.count], start=1):
            content = make(index.items_of(number), index.stage)
            path = shard_path(plan.folder, number)
            write_shard(path, content, index.stage, index.crops, index.digest)
            if ranks.index == 0:
                finished = min(done * ranks.count, len(missing))
                say(f"{plan.folder}: {finished} of {len(missing)} files of outputs are written.")
    except (InputError, OSError) as ex:
        problem = str(ex)
    ranks.agree(problem)
    return OutputStore(plan.folder, index, plan.names, needed)


def _prepare(plan: Plan, say: Say) -> dict[str, Any]:
    """Look at the folder, begin it where it is new, and say what is to be done."""
    folder, index = plan.folder, plan.index
    found = read_index(folder)
    if found is None:
        missing = list(range(index.num_shards))
    else:
        check_same(folder, found, index)
        index = found
        missing = missing_shards(folder, index)
        present = sorted(set(range(index.num_shards)) - set(missing))
        missing = sorted({*missing, *plan.outdated(index, present)})
    items = sum(len(index.items_of(number)) for number in missing)
    size = round(items * plan.bytes_an_item)
    if not missing:
        say(
            f"{folder} has the outputs of all {index.items:,} {plan.what}: none of them is read or "
            "encoded."
        )
    else:
        say(
            f"{folder}: the outputs of {items:,} of {index.items:,} {plan.what} are written, "
            f"{index.stage}, width {index.width}, {index.crops} crop(s) of each; about "
            f"{in_words(size)}."
        )
        check_room(folder, size)
    if found is None:
        write_index(folder, index)
    return {"index": asdict(index), "missing": missing}
