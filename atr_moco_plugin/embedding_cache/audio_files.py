"""Whether the files of a cache are still what they were when it was written.

A file that is gone is no fault: a cache is read without the audio.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.audio.source import FileSlice, Segment, file_marks

_CHUNK = 2**20


def describe_file(source: Any) -> list[Any] | None:
    """Size in bytes, time of change in ns, digest of the content of a clip's file, and when it came
    to be there in ns.

    Args:
        source: of the clip.

    Returns:
        Values of JSON's types; ``None`` for what is no file.
    """
    path, offset, size = _bytes_of(source)
    if path is None:
        return None
    state = os.stat(path)
    length = state.st_size if size is None else size
    return [
        state.st_size,
        state.st_mtime_ns,
        _digest(path, offset, length, file_marks(state)),
        state.st_ctime_ns,
    ]


def has_changed(source: Any, known: list[Any]) -> bool:
    """Whether a file is there and has another content than it had.

    The content is read only where the size is the same and a time is not, as after a copy. Both
    times count: another file put there may bring the time of change of the first along, as two
    releases of an archive do whose times are all one; and clips of one length have one size.

    Args:
        source: of the clip.
        known: from :func:`describe_file`.
    """
    path, offset, size = _bytes_of(source)
    if path is None:
        return False
    try:
        state = os.stat(path)
        if [state.st_size, state.st_mtime_ns, state.st_ctime_ns] == [*known[:2], *known[3:]]:
            return False
        if size is None and state.st_size != known[0]:
            return True
        length = state.st_size if size is None else size
        digest = _digest(path, offset, length, file_marks(state))
    except OSError:
        return False  # gone
    return bool(digest != known[2])


def _bytes_of(source: Any) -> tuple[Path | None, int, int | None]:
    """The file of a source, and which bytes of it; ``None`` for all to its end."""
    if isinstance(source, FileSlice):
        return source.path, source.offset, source.size
    if isinstance(source, Segment):
        return Path(source.path), 0, None
    if isinstance(source, (str, os.PathLike)):
        return Path(source), 0, None
    return None, 0, None


@lru_cache(maxsize=4096)  # parts of one long recording would each have all of it read
def _digest(path: Path, offset: int, size: int, marks: tuple[int, ...]) -> str:
    """Digest of bytes of a file, which is read once as long as it has those marks."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        file.seek(offset)
        while size > 0 and (part := file.read(min(_CHUNK, size))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()
