"""A folder that is there whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atr_moco_plugin.errors import InputError


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, which becomes ``folder`` where nothing goes wrong.

    Args:
        folder: not there yet, or empty.

    Raises:
        InputError: if something is there, or it cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} is there already: give another folder, or remove it first.")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as ex:
        raise InputError(
            f"{folder} cannot be written ({ex.strerror or ex}): give a folder that you may write "
            "to, on a disk with room."
        ) from ex
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
