"""Decoded audio on disk: one memory-mapped file a clip, shared by workers, processes and runs.

A file is written under another name and then renamed, so nobody reads half of it. Two processes
that decode the same clip write the same bytes, and the later file replaces the earlier. Nothing is
ever deleted: remove the folder to free its space, and with it the ``.*.tmp`` files of killed runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.source import FileSlice, FileSource, Segment, file_marks, stat_file
from atr_moco_plugin.io.atomic import new_file

Packed = NDArray[np.int16] | NDArray[np.float32]
"""A waveform as it is kept: 16-bit integers, or float32 where 16 bits lose too much."""

_LOGGER = logging.getLogger(__name__)
_FORMAT = "atr-moco-plugin cache 1"
_SCALE = np.float32(32768)


def pack(waveform: NDArray[np.float32], *, exact: bool) -> Packed:
    """Store a waveform in as few bytes as it can be.

    Args:
        waveform: ``[n]`` float32.
        exact: ``True`` takes 16-bit integers only where they give ``waveform`` back exactly,
            ``False`` wherever it is within full scale, with a rounding error of at most 2**-16
            (-96 dB).

    Returns:
        ``[n]`` int16, or a float32 copy.
    """
    scaled = waveform * _SCALE
    rounded: NDArray[np.float32] = np.rint(scaled)
    fits = bool((np.abs(rounded) < _SCALE).all())
    if fits and (not exact or np.array_equal(rounded, scaled)):
        return rounded.astype(np.int16)
    return waveform.copy()


def unpack(packed: Packed) -> NDArray[np.float32]:
    """The waveform that was packed, ``[n]`` float32; copied if ``packed`` is memory-mapped."""
    if packed.dtype == np.int16:
        return packed.astype(np.float32) / _SCALE
    return np.array(packed, np.float32, copy=isinstance(packed, np.memmap))


def entry_path(folder: Path, source: FileSource, *kind: str) -> Path:
    """Where the decoded audio of ``source`` is kept.

    The name is a digest of the file's path, times and size, and of the part of it, so that a file
    that is replaced is decoded anew, also by one of its size that brings its time along.

    Args:
        folder: the cache's folder.
        source: a file or a part of one.
        kind: what else decides about the samples, such as the decoder and the rate.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    part: tuple[object, ...] = ()
    if isinstance(source, FileSlice):
        path, part = source.path, (source.offset, source.size)
    elif isinstance(source, Segment):
        path, part = Path(source.path), ("segment", source.start, source.end)
    else:
        path = Path(source)
    state = stat_file(path, source)
    key: list[object] = [_FORMAT, os.path.abspath(path), *file_marks(state)]
    key += [*part, *kind]
    return _entry(folder, key)


def keyed_path(folder: Path, *kind: str) -> Path:
    """Where audio that comes from no single file is kept.

    Args:
        folder: the cache's folder.
        kind: all that decides about the samples.
    """
    return _entry(folder, [_FORMAT, "rendered", *kind])


def _entry(folder: Path, key: list[object]) -> Path:
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return folder / digest[:2] / f"{digest}.npy"


def read_entry(path: Path) -> Packed | None:
    """The memory-mapped entry at ``path``; ``None`` if there is none, or its header or its
    length is damaged; other samples are not noticed."""
    try:
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
    # A damaged header raises nearly anything.
    except Exception:
        return None
    if not isinstance(packed, np.memmap):
        return None
    usable = packed.ndim == 1 and packed.size and packed.dtype in (np.int16, np.float32)
    return packed if usable else None


def write_entry(path: Path, packed: Packed) -> None:
    """Keep ``packed`` at ``path``. If that fails, e.g. on a full disk, one warning says so and the
    run goes on without."""
    try:
        with new_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, packed)
    except OSError as error:
        _warn_once(path.parent.parent, error.strerror or str(error))


@cache
def _warn_once(folder: Path, reason: str) -> None:
    _LOGGER.warning("%s: decoded audio cannot be kept there (%s); go on without", folder, reason)
