"""Open an index in a folder."""

from __future__ import annotations

from pathlib import Path

from atr_moco_plugin.search.local.reading import LocalReader
from atr_moco_plugin.search.local.writing import LocalWriter
from atr_moco_plugin.search.store import IndexInfo, Store


def create_local(folder: Path, info: IndexInfo) -> Store:
    """Open an index in a folder for writing, made where there is none.

    Args:
        folder: empty, missing, or of an index.
        info: the model and the windows of what will be put in.

    Raises:
        InputError: where another process writes to it, it cannot be written, holds other files, is
            damaged, or is of another model or other windows.
    """
    return LocalWriter(folder, info)


def open_local(folder: Path, *, write: bool = False) -> Store:
    """Open the index in a folder, which any number of processes may read while one writes.

    Args:
        folder: of an index.
        write: open it for writing.

    Raises:
        InputError: where there is none or it is damaged; to write also as :func:`create_local`.
    """
    return LocalWriter(folder) if write else LocalReader(folder)
