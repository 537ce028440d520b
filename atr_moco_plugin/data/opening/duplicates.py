"""Which audio files are the same: by what the file system says, and by their bytes.

Bytes are compared in steps, so that files that differ are hardly read: the size, a block near the
beginning, blocks from all over the file, and a digest of the whole file. That digest is kept in the
user's cache folder; without it, equal files would be read whole each time the data set is opened.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from atr_moco_plugin.data.audio.decode import opened
from atr_moco_plugin.data.audio.source import FileSlice, Segment, file_marks
from atr_moco_plugin.io.atomic import write_atomically

FileSource = str | os.PathLike[str] | FileSlice | Segment
"""A file, or a part of one: a :data:`~atr_moco_plugin.data.audio.source.Source` on disk."""

_BLOCK = 1024
_FIRST = 4096  # behind any header, and within the first pages, which the system reads together
_BLOCKS = 16
_CHUNK = 2**20
_FILES_A_JOB = 256


def file_identity(source: FileSource) -> object:
    """A value that is equal for two sources if and only if they are in one file, over links of any
    kind. Two parts of a file's bytes have equal values if they are the same part.

    It is the path itself where there is no file.
    """
    path, *part = _bounds(source)
    state = _stat(path)
    if state is None:
        return path, *part
    # Some network file systems give numbers to files as they like: one without a second name can
    # only be met twice by its real path.
    file = (state.st_dev, state.st_ino) if state.st_nlink > 1 else os.path.realpath(path)
    return file, *part


def same_files(sources: Sequence[FileSource]) -> list[list[int]]:
    """Groups of sources that are in one file, of at least two each, as positions in ``sources``."""
    stat = lru_cache(maxsize=1)(_stat)  # segments of one file mostly follow each other
    marks = array("q")
    for path, offset, _ in map(_bounds, sources):
        state = stat(path)
        file = path if state is None else (state.st_dev, state.st_ino)
        marks.append(hash((file, offset)))
    groups: dict[object, list[int]] = defaultdict(list)
    for at in _repeated(marks):
        groups[file_identity(sources[at])].append(at)
    return [group for group in groups.values() if len(group) > 1]


def equal_sources(sources: Sequence[FileSource], *, silence: bool = False) -> list[list[int]]:
    """Groups of sources with the same bytes, of at least two each, as positions in ``sources``.

    Segments are compared by their whole files. Files that are empty or that cannot be read are in
    no group. Files of digital silence are no recordings and are in no group without ``silence``.

    Args:
        sources: the sources.
        silence: whether silent files may be equal.
    """
    sizes = array("q", map(_size, sources))
    chosen = [at for at in _repeated(sizes) if sizes[at] > 0]
    jobs = [chosen[k : k + _FILES_A_JOB] for k in range(0, len(chosen), _FILES_A_JOB)]
    marks = array("q")
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for found in pool.map(lambda job: [_first_block(sources[at]) for at in job], jobs):
            marks.extend(found)
    keys = array("q", (hash((sizes[at], mark)) for at, mark in zip(chosen, marks, strict=True)))
    groups: dict[object, list[int]] = defaultdict(list)
    for k in _repeated(keys):
        groups[keys[k]].append(chosen[k])
    for digest in (_digest_of_blocks, _digest_of_all):
        finer: dict[object, list[int]] = defaultdict(list)
        for at in chain.from_iterable(groups.values()):
            finer[digest(sources[at], sizes[at])].append(at)
        groups = {key: same for key, same in finer.items() if key is not None and len(same) > 1}
    return sorted(g for g in groups.values() if silence or not _is_silent(sources[g[0]]))


def _repeated(values: Sequence[int]) -> list[int]:
    """Positions of the values that occur more than once, in order."""
    _, inverse, counts = np.unique(
        np.asarray(values, np.int64), return_inverse=True, return_counts=True
    )
    positions: list[int] = np.flatnonzero(counts[inverse] > 1).tolist()
    return positions


def _bounds(source: FileSource) -> tuple[str, int, int | None]:
    """Path, first byte, and number of bytes; ``None`` for all."""
    if type(source) is str:
        return source, 0, None
    if isinstance(source, FileSlice):
        return os.fspath(source.path), source.offset, source.size
    path = source.path if isinstance(source, Segment) else source
    return os.fspath(path), 0, None


def _first_block(source: FileSource) -> int:
    path, offset, size = _bounds(source)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return hash(path)
    try:
        # Of a file that ends before, its beginning.
        at = 0 if size is not None and size < _FIRST + _BLOCK else _FIRST
        data = os.pread(file, _BLOCK, offset + at) or os.pread(file, _BLOCK, offset)
        return zlib.crc32(data)
    except OSError:
        return hash(path)
    finally:
        os.close(file)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _size(source: FileSource) -> int:
    """In bytes, 0 where there is no file."""
    path, _, size = _bounds(source)
    if size is None:
        state = _stat(path)
        size = 0 if state is None else state.st_size
    return size


def _digest_of_blocks(source: FileSource, size: int) -> bytes | None:
    path, offset, _ = _bounds(source)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    try:
        with open(path, "rb") as file:
            for k in range(_BLOCKS):
                file.seek(offset + max(0, size - _BLOCK) * k // (_BLOCKS - 1))
                digest.update(file.read(min(size, _BLOCK)))
    except OSError:
        return None
    return digest.digest()


def _digest_of_all(source: FileSource, size: int) -> bytes | None:
    path, offset, _ = _bounds(source)
    try:
        state = os.stat(path)
        key = repr(["digest 1", os.path.abspath(path), *file_marks(state)])
        key += repr([offset, size])
        entry = _cache_entry(key)
        with suppress(OSError, ValueError):
            known = bytes.fromhex(entry.read_text("ascii"))
            if len(known) == 16:
                return known
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as file:
            file.seek(offset)
            left = size
            while left > 0 and (data := file.read(min(left, _CHUNK))):
                digest.update(data)
                left -= len(data)
    except OSError:
        return None
    with suppress(OSError):  # a folder that cannot be written costs time and nothing else
        write_atomically(entry, digest.hexdigest())
    return digest.digest()


def _cache_entry(key: str) -> Path:
    name = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "atr_moco_plugin" / "digests" / name[:2] / name


def _is_silent(source: FileSource) -> bool:
    """Whether all samples of the file are zero."""
    whole = source.path if isinstance(source, Segment) else source
    try:
        with opened(whole) as file:
            return not any(block.any() for block in file.blocks(_CHUNK // file.channels))
    except (ValueError, OSError, RuntimeError):
        return False
