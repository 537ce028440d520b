"""What there is to do: the sounds on disk beside what an index knows of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.sources import Listing
from atr_moco_plugin.search.store import Store
from atr_moco_plugin.search.walk import Found


class Task(NamedTuple):
    """A sound to embed.

    Attributes:
        found: the sound.
        digest: of what the index has under its name; empty where it has nothing, or where the
            sound is to be embedded though it is the same.
        known: whether the index has something under its name.
        problem: why that cannot be read; else empty.
    """

    found: Found
    digest: str
    known: bool
    problem: str = ""


@dataclass
class Plan:
    """What :func:`make_plan` has found.

    Attributes:
        tasks: sounds to embed, in the order in which they were listed.
        gone: recordings to remove.
        kept: recordings that are not there, as on a disk that is not mounted or in a tar that
            breaks off.
        unchanged: number of recordings that are as the index knows them.
        broken: name and reason of those that it knows as broken, and that are as they were.
    """

    tasks: list[Task] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    unchanged: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


class _Known(NamedTuple):
    """Of a recording of the index; a few hundred bytes, since there may be millions."""

    size: int
    mtime_ns: int
    digest: str
    problem: str


def make_plan(
    store: Store,
    listing: Listing,
    *,
    prune: bool = False,
    retry_broken: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Plan:
    """Compare what is on disk with an index, by path, size and time; no sound is read.

    Args:
        store: the index.
        listing: what is on disk.
        prune: also remove what is missing as on a disk that is not mounted; of a list or a table,
            all that it does not name.
        retry_broken: also try again what could not be read and has not changed.
        stop: asked now and then; where it says so, what was found so far is the plan, and nothing
            is gone.

    Raises:
        InputError: if there is no sound, and the index knows none of this source, which is probably
            not the one that was meant, or it does and ``prune`` is not given, or it is a list.
    """
    known = {
        recording.key: _Known(
            recording.size, recording.mtime_ns, recording.digest, recording.problem
        )
        for recording in store.recordings()
    }
    plan = Plan()
    number = 0
    for number, found in enumerate(listing.found, start=1):
        if number % 256 == 0 and stop():
            return plan
        was = known.pop(found.key, None)
        if was is None:
            plan.tasks.append(Task(found, "", False))
        elif retry_broken and was.problem:
            plan.tasks.append(Task(found, "", True))
        elif (was.size, was.mtime_ns) != (found.size, found.mtime_ns):
            plan.tasks.append(Task(found, was.digest, True, was.problem))
        elif was.problem:
            plan.broken.append((found.name, was.problem))
        else:
            plan.unchanged += 1
    covered = [key for key in known if (prune and listing.is_list) or listing.covers(*key)]
    if not number:
        _refuse_nothing(listing, len(covered), prune)
    disk_is_away = cache(_disk_is_away)
    for key in covered:
        unread = key[0] in listing.notes.unread
        away = not prune and (unread or disk_is_away(os.path.dirname(key[0])))
        (plan.kept if away else plan.gone).append(key)
    return plan


def _refuse_nothing(listing: Listing, covered: int, prune: bool) -> None:
    if covered and listing.is_list and prune:
        # As of a `find` that failed, or a wrong --relative-to: --prune would remove all there is.
        raise InputError(f"{no_sounds(listing)}; to remove all recordings, delete the index")
    if covered and not prune:
        remove = "to remove all recordings, delete the index"
        raise InputError(
            f"{listing.name}: has no sounds now, but the index has {covered:,} recordings from "
            "there; mount the disk that they are on, or "
            + (remove if listing.is_list else "give --prune to remove them")
        )
    if not covered:
        raise InputError(no_sounds(listing))


def no_sounds(listing: Listing) -> str:
    """The sentence for a source in which there is no sound."""
    if not os.path.lexists(listing.name):
        return f"{listing.name}: no such file or folder"
    other = [
        f"{count:,} {suffix or 'without suffix'}"
        for suffix, count in listing.notes.other.most_common(5)
    ]
    problems = [f"{name} {reason}" for name, reason in listing.notes.problems[:3]]
    met = "; ".join([", ".join(other), *problems] if other else problems)
    if listing.is_list:
        return (
            f"{listing.name}: names no sound that is there (passed over: {met or 'nothing'}); its "
            "names are relative to its own folder, or to --relative-to DIR"
        )
    return (
        f"{listing.name}: has no sounds (passed over: {met or 'nothing'}); give another folder, or "
        "--suffix for sounds with another suffix"
    )


def _disk_is_away(folder: str) -> bool:
    """Whether a missing file may be on a disk that is not mounted: the nearest folder above it that
    is there is empty or cannot be read, or a link on the way leads nowhere."""
    while not os.path.isdir(folder):
        if os.path.islink(folder):
            return True
        above = os.path.dirname(folder)
        if above == folder:
            return True
        folder = above
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def in_groups(tasks: Sequence[Task], batch_size: int) -> Iterator[Sequence[Task]]:
    """Cut the tasks into what is embedded and written at once.

    A group is as long as the windows of short sounds fill eight batches, or as long files fill as
    many bytes as that. It depends on nothing but the tasks from its first one on. So a run that was
    killed goes on with the groups that it would have had, and its batches are the same.
    """
    most, most_bytes = 8 * batch_size, 8 * batch_size * 2**19
    start = size = 0
    for end, task in enumerate(tasks):
        if end > start and (end - start == most or size + task.found.size > most_bytes):
            yield tasks[start:end]
            start, size = end, 0
        size += task.found.size
    if tasks:
        yield tasks[start:]
