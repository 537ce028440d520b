"""Sounds decoded ahead of the model, in threads and in bounded memory."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from atr_moco_plugin.data.audio.stream import AudioWindow
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.search.plan import Task
from atr_moco_plugin.search.store import Recording

CHANGES = "changes while it is read"

_WINDOWS = 4
"""Windows of a recording that go to the model together; twice as many may wait."""

_BLOCK = 2**20


class Again(NamedTuple):
    """A recording has changed while it was read: forget its windows, it comes once more."""


class End(NamedTuple):
    """A recording has been read.

    Attributes:
        recording: what it is; ``seconds`` is 0. None where it could not be read now and may be
            another time.
        problem: why it could not be read, now or at all; else empty.
        same: its content is what the index has.
    """

    recording: Recording | None
    problem: str = ""
    same: bool = False


Item: TypeAlias = AudioWindow | Again | End
Windows = Callable[[Any], Iterator[AudioWindow]]

_Chunks: TypeAlias = "queue.Queue[list[Item] | BaseException]"


class ReadAhead:
    """Reads sounds in threads; at most a few windows of a few sounds wait.

    Args:
        windows: decodes a source.
        threads: how many sounds are read at once.
        ahead: how many wait beside them.
    """

    def __init__(self, windows: Windows, threads: int = 2, ahead: int = 32) -> None:
        self._windows = windows
        self._threads = threads
        self._ahead = ahead
        self._stopped = threading.Event()

    def __call__(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Iterator[Item]], None, None]:
        """Read the tasks.

        Yields:
            Each task and its items, the last of which is its :class:`End`. They are to be taken in
            full before the next task.
        """
        pending: deque[tuple[Task, _Chunks]] = deque()
        todo = iter(tasks)
        with ThreadPoolExecutor(self._threads, "read") as pool:
            try:
                while True:
                    for task in islice(todo, self._threads + self._ahead - len(pending)):
                        chunks: _Chunks = queue.Queue(1)
                        pending.append((task, chunks))
                        pool.submit(self._read, task, chunks)
                    if not pending:
                        return
                    task, chunks = pending.popleft()
                    yield task, _drain(chunks)
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)

    def _read(self, task: Task, chunks: _Chunks) -> None:
        chunk: list[Item] = []
        try:
            for item in read_sound(task, self._windows):
                chunk.append(item)
                if len(chunk) == _WINDOWS and not isinstance(item, End):
                    self._put(chunks, chunk)
                    chunk = []
                if self._stopped.is_set():
                    return
            self._put(chunks, chunk)
        except BaseException as ex:  # a bug keeps its traceback, in the thread that takes the items
            self._put(chunks, ex)

    def _put(self, chunks: _Chunks, chunk: list[Item] | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                chunks.put(chunk, timeout=0.1)
                return
            except queue.Full:
                continue


def _drain(chunks: _Chunks) -> Iterator[Item]:
    while True:
        chunk = chunks.get()
        if isinstance(chunk, BaseException):
            raise chunk
        yield from chunk
        if isinstance(chunk[-1], End):
            return


def read_sound(task: Task, windows: Windows) -> Iterator[Item]:
    """Read one sound: its digest, and its windows where they are not in the index already.

    A file whose size or time is another after reading is read once more, and then left for another
    time.
    """
    for turn in range(2):
        end = yield from _read_once(task, windows)
        if end.problem != CHANGES or turn:
            yield end
            return
        yield Again()


def _read_once(task: Task, windows: Windows) -> Generator[AudioWindow, None, End]:
    found = task.found
    problem, digest, same = "", "", False
    try:
        before = _state(found.path)
        if found.offset and before[1] != found.mtime_ns:
            return End(None, CHANGES)  # its members may be elsewhere by now
        digest = _digest(found.path, found.offset, found.size if found.offset else -1, *before)
        same = digest == task.digest
        if not same:
            try:
                yield from windows(found.source)
            except MissingFileError:
                return End(None, "has just gone")
            except InputError as ex:
                problem = _reason(ex, str(found.source))
        after = _state(found.path)
    except OSError as ex:
        return End(None, f"cannot be read ({ex.strerror or ex})")
    if before != after:
        return End(None, CHANGES)
    recording = Recording(
        path=found.path,
        member=found.member,
        size=found.size if found.offset else before[0],
        mtime_ns=before[1],
        digest=digest,
        seconds=0.0,
        problem=problem,
    )
    return End(recording, problem, same)


def _state(path: str) -> tuple[int, int]:
    """Size and time of a file."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(path: str, offset: int, size: int, file_size: int, mtime_ns: int) -> str:
    """SHA-256 of a file, or of a part where ``size`` is not negative. The last two are there so
    that the parts of one file hash it once, and a changed file is hashed again."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        left = size if size >= 0 else file_size
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _reason(error: InputError, name: str) -> str:
    """The message without the name that it begins with, and without what to do with a data set."""
    text = str(error).removeprefix(name).removeprefix(":").partition("; ")[0]
    # A name that is not UTF-8 may be within it.
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
