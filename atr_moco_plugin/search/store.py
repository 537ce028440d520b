"""What every index of recordings offers, on disk or in a database.

Shapes: Q queries, R recordings, W windows of a recording, d embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.tables.file_names import composed
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import Bank, BankInfo
from atr_moco_plugin.search.names import part_of, shown_name

StoreT = TypeVar("StoreT", bound="Store")


class NoWindowError(InputError):
    """A number is not that of a window of the index, or of one that was removed since."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the index has no window {number}: it was removed, or never there.")


class ReplacedIndexError(InputError):
    """Where an index was open, there is one of another model or of other windows by now."""

    def __init__(self, place: object) -> None:
        super().__init__(
            f"{place} was made anew with another model or other windows while it was open: open it "
            "again."
        )


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """Which model made an index, and how it cut the recordings.

    Attributes:
        model: what the retriever was loaded from: a folder's absolute path or a hub name.
        fingerprint: of the model, see ``AudioTextRetriever.fingerprint``.
        embed_dim: size d of the embeddings.
        sample_rate: Hz.
        window_seconds: length of a window.
        hop_seconds: from the start of a window to the start of the next.
    """

    model: str
    fingerprint: str
    embed_dim: int
    sample_rate: int
    window_seconds: float
    hop_seconds: float


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording of an index.

    Attributes:
        path: absolute path of its file. Names that are not UTF-8 are as ``os.fsdecode`` has them.
        member: its name in the file, where that is a tar; ``#t=30,40`` where it is the part from 30
            to 40 seconds (times of its windows count from the start of the part); else empty.
        size: bytes of the file or the member.
        mtime_ns: when the file was last changed, in nanoseconds.
        digest: SHA-256 of its content in hexadecimal.
        seconds: how long it lasts; 0 where it is broken.
        problem: why it cannot be read; empty where it can. It then has no windows.
    """

    path: str
    member: str = ""
    size: int
    mtime_ns: int
    digest: str
    seconds: float
    problem: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What names a recording in an index."""
        return (self.path, self.member)

    @property
    def name(self) -> str:
        """As it is shown: ``a.wav``, ``shard.tar/a.wav``, ``a.wav#t=30,40``."""
        return shown_name(self.path, self.member)

    def is_as_indexed(self, state: os.stat_result) -> bool:
        """Whether its file, in this state, is still the one that was indexed: by time and size, of
        a member of a tar by the tar's time."""
        whole = not self.member or part_of(self.member) is not None
        same_size = not whole or state.st_size == self.size
        return same_size and state.st_mtime_ns == self.mtime_ns


class Embedded(NamedTuple):
    """A recording to put into an index.

    Attributes:
        recording: what it is.
        spans: ``[W, 2]`` float64, start and end of each window in seconds.
        embeddings: ``[W, d]`` float32, unit-norm.
    """

    recording: Recording
    spans: NDArray[np.float64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which recordings a search looks at.

    Attributes:
        path: a pattern as of a shell (``*``, ``?``, ``[...]``) that :attr:`Recording.name` must
            match; ``*`` matches ``/`` too, and an accented letter is one whether it is written as
            one character or two (NFC, NFD). None takes all.
        min_seconds: least length of the recording.
        max_seconds: greatest length of the recording.
    """

    path: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError for lengths that no recording has."""
        least, most = self.min_seconds or 0.0, self.max_seconds
        if not least >= 0 or (most is not None and not most >= least):
            raise InputError(
                f"recordings of {least:g} s or more and {'any' if most is None else f'{most:g}'} s "
                "or less are none: give lengths of 0 or more, the least first."
            )

    def takes(self, recording: Recording) -> bool:
        """Whether a recording is looked at."""
        return self.takes_any(recording.path, recording.member, recording.seconds)

    def takes_any(self, path: str, member: str, seconds: float) -> bool:
        """As :meth:`takes`, of what counts in a recording."""
        if self.min_seconds is not None and seconds < self.min_seconds:
            return False
        if self.max_seconds is not None and seconds > self.max_seconds:
            return False
        if self.path is None:
            return True
        return fnmatchcase(composed(shown_name(path, member)), composed(self.path))


class WindowHit(NamedTuple):
    """A window that fits a query.

    Attributes:
        window: its number in the index.
        recording: what it is a part of.
        start: seconds.
        end: seconds.
        score: what it is ordered by, in float32: the cosine, less the correction where one was
            asked for.
        cosine: with the query, in float32.
    """

    window: int
    recording: Recording
    start: float
    end: float
    score: float
    cosine: float


class RecordingScores(NamedTuple):
    """How well each recording fits each query: by its best window.

    Attributes:
        scores: ``[Q, R]`` float32.
        windows: ``[Q, R]`` int64, the number of the best window.
        cosines: ``[Q, R]`` float32 of the best window; the scores where nothing is corrected.
    """

    scores: NDArray[np.float32]
    windows: NDArray[np.int64]
    cosines: NDArray[np.float32]


class Counts(NamedTuple):
    """What is in an index: recordings that can be searched, their windows and length, and broken
    recordings."""

    recordings: int
    windows: int
    seconds: float
    broken: int


class Store(Protocol):
    """An index: one process writes, many read.

    What :meth:`put`, :meth:`touch`, :meth:`remove` and :meth:`set_bank` do is there whole or not at
    all, also when the process is killed. A reader sees the index as it was when it last called a
    method.
    """

    @property
    def info(self) -> IndexInfo:
        """The model and the windows."""

    def __enter__(self: StoreT) -> StoreT: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    def counts(self) -> Counts:
        """What is in it."""

    def recordings(self) -> Iterator[Recording]:
        """All recordings as of now, broken ones too, by path and member as bytes."""

    def put(self, embedded: Sequence[Embedded]) -> None:
        """Add recordings; one that is there already, by path and member, is replaced.

        A recording has one window or more, or a problem. Numbers of windows are never given twice.
        """

    def touch(self, times: Mapping[tuple[str, str], int]) -> None:
        """Set ``mtime_ns`` of recordings by path and member, where a file is newer and its content
        the same; windows stay. Unknown ones are passed over."""

    def remove(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove recordings by path and member; unknown ones are passed over."""

    def bank(self) -> BankInfo | None:
        """The bank that searches may be corrected with; None where there is none."""

    def set_bank(self, bank: Bank | None, *, progress: bool = False) -> None:
        """Keep another bank, or with None none, and the offset of every window: of those that are
        there, from their vectors, and from now on of what is put.

        Args:
            bank: embedded by the model of the index.
            progress: show a bar on standard error.
        """

    def finish(self, *, progress: bool = False) -> None:
        """Make it quick to search, after it was filled; searches are right without it. Offsets that
        an earlier version did not put are made up for.

        Args:
            progress: show a bar on standard error, where it takes long.
        """

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        only: Filter | None = None,
        alpha: float = 0.0,
    ) -> list[list[WindowHit]]:
        """The k windows with the highest score for each of ``[Q, d]`` queries, best first; ties by
        number of the window.

        The score is the cosine, less ``alpha`` times the offset of the window (see
        :mod:`~atr_moco_plugin.search.bank`).

        Raises:
            InputError: for an alpha without a bank.
        """

    def recording_scores(
        self, queries: NDArray[np.float32], only: Filter | None = None, alpha: float = 0.0
    ) -> RecordingScores:
        """The best window of every recording, for each of ``[Q, d]`` queries, by the score of
        :meth:`nearest`; recordings in the order of :meth:`recordings`, without broken ones.

        Raises:
            InputError: for an alpha without a bank.
        """

    def windows(self, numbers: Sequence[int]) -> list[WindowHit]:
        """Windows by their numbers, with a score and a cosine of 0.

        Raises:
            NoWindowError: for a number that is not in the index.
        """
