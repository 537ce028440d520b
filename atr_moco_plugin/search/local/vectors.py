"""The files of vectors: float16 rows, one a window, without a header, only appended to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError

DTYPE = np.dtype("<f2")


def vector_file(folder: Path, number: int) -> Path:
    """The N-th file of vectors of an index."""
    return folder / f"vectors-{number}.f16"


def vector_files(folder: Path) -> list[Path]:
    """All files of vectors in a folder."""
    return sorted(folder.glob("vectors-*.f16"))


def write_rows(path: Path, start: int, vectors: NDArray[np.floating]) -> None:
    """Write ``[N, d]`` vectors from row ``start`` on; they are on the disk when this returns.

    What stood there is overwritten: rows after the last that the index counts.
    """
    fresh = not path.exists()
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        file.seek(start * vectors.shape[1] * DTYPE.itemsize)
        rest = memoryview(np.ascontiguousarray(vectors, dtype=DTYPE).tobytes())
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    if fresh:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See to it that names made in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_rows(path: Path, rows: int, width: int) -> NDArray[np.float16]:
    """The first ``rows`` rows, ``[rows, width]`` float16, mapped and not read.

    Raises:
        FileNotFoundError: where there is no such file.
        InputError: where it has fewer rows.
    """
    if not rows:
        return np.empty((0, width), DTYPE)
    size, wanted = path.stat().st_size, rows * width * DTYPE.itemsize
    if size < wanted:
        raise InputError(
            f"{path} has {size:,} bytes, and the index counts on {wanted:,}: bring the whole file "
            "back, or make the index anew."
        )
    # Copy on write: torch warns of memory that cannot be written, and nobody writes.
    return np.memmap(path, DTYPE, mode="c", shape=(rows, width))
