"""Where the bytes of a clip are: a file, or a part of a larger one."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.errors import InputError, MissingFileError

MAX_SLICE_BYTES = 256 * 2**20
"""Largest part of a file that is read into memory at once: 10 minutes of 24-bit stereo at 48 kHz
are 165 MiB."""

SEGMENT_TOLERANCE = 0.1
"""Seconds by which a segment may end after its file, as rounded numbers do."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A run of bytes in a file, such as a member of a tar shard.

    Attributes:
        path: the file.
        offset: where the run begins, in bytes.
        size: how long it is, at most :data:`MAX_SLICE_BYTES`.
        name: what it is called there; for messages, never used as a path.
    """

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}, member {self.name}"

    def read(self) -> bytes:
        """The bytes.

        Raises:
            FileNotFoundError: if there is no such file.
            InputError: if the run is too long, or the file ends within it.
        """
        if self.size > MAX_SLICE_BYTES:
            raise InputError(
                f"{self}: has {self.size:,} bytes, more than {MAX_SLICE_BYTES:,}; leave it out"
            )
        stat_file(self.path, self)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise InputError(
                f"{self}: the file ends {self.size - len(data):,} bytes too early; fetch it again"
            )
        return data


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """The content of a file that is in memory.

    Attributes:
        content: its bytes.
        name: what it is called; for messages, never used as a path.
    """

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in an audio file that is a clip of its own.

    Attributes:
        path: the file.
        start: where the part begins, in seconds.
        end: where it ends, after ``start``.
    """

    path: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.path} from {self.start:g} s to {self.end:g} s"

    def frames(self, total: int, rate: int) -> tuple[int, int]:
        """First sample and one after the last, of a file with ``total`` samples at ``rate`` Hz.

        Raises:
            InputError: if the part begins after the file's end, or ends more than
                :data:`SEGMENT_TOLERANCE` after it.
        """
        if self.start * rate >= total or self.end * rate > total + SEGMENT_TOLERANCE * rate:
            raise InputError(
                f"{self}: is not in its file, which lasts {total / rate:.3f} s; correct start and "
                "end, which are seconds in the file"
            )
        return round(self.start * rate), min(round(self.end * rate), total)


FileSource = str | os.PathLike[str] | FileSlice | Segment
"""Audio on disk: a whole file, a run of a file's bytes, or a stretch of a file's time."""

Source = FileSource | MemoryFile
"""Audio on disk or in memory."""


def stat_file(path: str | os.PathLike[str], source: object) -> os.stat_result:
    """What the file system knows of the regular file at ``path``.

    Raises:
        FileNotFoundError: if there is none; the message begins with ``source``.
    """
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # not there, or not a possible file name
        state = None
    if state is None or not stat.S_ISREG(state.st_mode):
        raise MissingFileError(f"{source}: no such audio file; check the data set's root folder")
    return state


def file_marks(state: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is replaced, also by one that has its size and brings its time of
    change along, as two releases of an archive do whose times are all one."""
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size


def unusable(source: object, problem: str) -> InputError:
    """The error of an audio file with a problem, to be raised."""
    return InputError(f"{source}: {problem}; fetch it again or leave it out")


def open_source(source: Source) -> str | io.BytesIO:
    """What an audio decoder opens: the path of a whole file, else the bytes in memory.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: as :meth:`FileSlice.read`, and if the source is empty.
    """
    opened: str | io.BytesIO
    if isinstance(source, FileSlice):
        size, opened = source.size, io.BytesIO(source.read())
    elif isinstance(source, MemoryFile):
        size, opened = len(source.content), io.BytesIO(source.content)
    else:
        opened = os.fspath(source.path if isinstance(source, Segment) else source)
        size = stat_file(opened, source).st_size
    if size == 0:
        raise unusable(source, "not readable as audio (the file is empty)")
    return opened
