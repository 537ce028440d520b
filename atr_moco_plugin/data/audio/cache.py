"""Decoded audio on disk: one memory-mapped file a clip, shared by workers, ranks and runs.

A file is written beside its place and then renamed, so that no one sees half of it: two processes
that decode the same clip write the same bytes, and the later one replaces the earlier. Nothing is
ever deleted; remove the folder to free its space, also from ``*.tmp`` of a run that was killed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.source import FileSlice, Segment, Source
from atr_moco_plugin.errors import MissingFileError

Packed = NDArray[np.int16] | NDArray[np.float32]
"""A waveform as it is kept: 16-bit integers, or float32 where they would not do."""

_LOGGER = logging.getLogger(__name__)
_FORMAT = "atr-moco-plugin cache 1"
_SCALE = np.float32(32768)


def pack(waveform: NDArray[np.float32], *, exact: bool) -> Packed:
    """Make a waveform small.

    Args:
        waveform: ``[n]`` float32.
        exact: ``True``: 16-bit integers only where they give ``waveform`` back exactly. ``False``:
            wherever it is within full scale, with a rounding error of at most 2**-16 (-96 dB).

    Returns:
        ``[n]`` int16, or a float32 copy.
    """
    scaled = waveform * _SCALE
    rounded = np.rint(scaled)
    fits = bool((np.abs(rounded) < _SCALE).all())
    if fits and (not exact or np.array_equal(rounded, scaled)):
        return rounded.astype(np.int16)
    return waveform.copy()


def unpack(packed: Packed) -> NDArray[np.float32]:
    """The waveform that was packed, ``[n]`` float32; a copy where ``packed`` is a file's."""
    if packed.dtype == np.int16:
        return packed.astype(np.float32) / _SCALE
    return np.array(packed, np.float32) if isinstance(packed, np.memmap) else packed


def entry_path(folder: Path, source: Source, *kind: str) -> Path:
    """Where the decoded audio of ``source`` is kept.

    The name is a digest of the file's path, time of change and size (and of the part of it), so
    that a file that is replaced is decoded anew.

    Args:
        folder: the cache's folder.
        source: a file or a part of one.
        kind: what else decides about the samples, such as the decoder and the rate.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(source.path if isinstance(source, FileSlice | Segment) else source)
    try:
        state = path.stat()
    except OSError as error:
        raise MissingFileError(
            f"{source}: no such audio file; check the data set's root folder"
        ) from error
    part: tuple[object, ...] = ()
    if isinstance(source, FileSlice):
        part = (source.offset, source.size)
    elif isinstance(source, Segment):
        part = ("segment", source.start, source.end)
    key = [_FORMAT, os.path.abspath(path), state.st_mtime_ns, state.st_size, *part, *kind]
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return folder / digest[:2] / f"{digest}.npy"


def read_entry(path: Path) -> Packed | None:
    """The memory-mapped entry at ``path``; ``None`` if there is none or it is damaged."""
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
    """Keep ``packed`` at ``path``. Where that fails, e.g. on a full disk, one warning says so and
    the run goes on without."""
    # Not the tempfile module's: its files are for one user alone, and the folder may be shared.
    temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.save(file, packed)
        temporary.replace(path)
    except OSError as error:
        _warn_once(path.parent.parent, error.strerror or str(error))
        with suppress(OSError):
            temporary.unlink()


@lru_cache(maxsize=None)
def _warn_once(folder: Path, reason: str) -> None:
    _LOGGER.warning("%s: decoded audio cannot be kept there (%s); go on without", folder, reason)
