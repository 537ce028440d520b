"""An inverted file of FAISS: vectors in lists by the centre that they are nearest to.

A search looks into the lists of the nearest centres alone. Vectors are kept there in 8 bits a
number, which is enough to choose candidates: whoever asks scores those from the vectors themselves.
Shapes: N vectors, d their size.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from atr_moco_plugin.errors import InputError

Index = Any
"""``faiss.IndexIVF``. What FAISS returns is typed as its base class."""
MOST_LISTS = 16_384
SAMPLE = 64
"""Vectors a list that the centres are computed from."""
PART = 16
"""One list in so many is looked into."""
LEAST_LISTS = 64
"""Lists that are looked into at least."""
CANDIDATES = 4
"""Candidates for each hit that is asked for."""
CORRECTED = 64
"""The same where scores are corrected: FAISS chooses by cosine, which orders otherwise."""

_BLOCK = 65_536


def lists_for(count: int) -> int:
    """How many lists so many vectors go into: then centres and lists take as long to look at."""
    return min(round(2 * math.sqrt(count)), MOST_LISTS)


def train(matrix: NDArray[np.float16], rows: NDArray[np.int64], *, progress: bool = False) -> Index:
    """An empty index, with centres of a seeded sample of some rows of ``[N, d]`` vectors."""
    lists = lists_for(len(rows))
    chosen = rows
    if len(rows) > lists * SAMPLE:
        chosen = np.random.default_rng(0).choice(rows, lists * SAMPLE, replace=False)
    index: Index = faiss.index_factory(
        matrix.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT
    )
    with tqdm(desc="faiss: centres", total=1, disable=not progress) as bar:
        index.train(matrix[np.sort(chosen)].astype(np.float32))
        bar.update()
    return index


def add(
    index: Index,
    matrix: NDArray[np.float16],
    rows: NDArray[np.int64],
    numbers: NDArray[np.int64],
    *,
    progress: bool = False,
) -> None:
    """Add rows of the vectors under their numbers."""
    with tqdm(desc="faiss: windows", total=len(rows), disable=not progress) as bar:
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            index.add_with_ids(matrix[rows[block]].astype(np.float32), numbers[block])
            bar.update(len(rows[block]))


def write(index: Index, path: Path) -> int:
    """Write a file, which is on the disk when this returns, and return its bytes."""
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as ex:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({_reason(ex)}): see that the disk has space; the index is "
            "whole, and searched without it."
        ) from None
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def read(path: Path, *, change: bool = False) -> Index:
    """Read a file: mapped and so at once, or into memory to be changed."""
    try:
        index: Index = faiss.read_index(os.fspath(path), 0 if change else faiss.IO_FLAG_MMAP)
    except RuntimeError as ex:
        raise InputError(
            f"{path} cannot be read ({_reason(ex)}): run `index --engine exact` and then `index "
            "--engine faiss` to make it anew."
        ) from None
    if not change:
        # Threads that read ahead cost more than they gain once the file is in memory.
        lists: Any = faiss.downcast_InvertedLists(index.invlists)
        lists.prefetch_nthread = 0
    return index


def _reason(ex: RuntimeError) -> str:
    """What FAISS says, without the place in its code."""
    return str(ex).rpartition("Error: ")[2].strip()


def candidates(
    index: Index, query: NDArray[np.float32], count: int, allowed: NDArray[np.uint8] | None
) -> NDArray[np.int64]:
    """Numbers of windows among which most of those with the highest cosine are, ascending.

    Args:
        index: of any windows.
        query: ``[d]``.
        count: how many numbers, at most.
        allowed: a bit for each number, the lowest first; all where it is None.
    """
    options: dict[str, Any] = {"nprobe": max(LEAST_LISTS, index.nlist // PART)}
    if allowed is not None:
        bitmap: Any = faiss.IDSelectorBitmap
        options["sel"] = bitmap(allowed)
    _, numbers = index.search(query[None], count, params=faiss.SearchParametersIVF(**options))
    return np.sort(numbers[numbers >= 0])
