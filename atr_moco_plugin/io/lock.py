"""One process at a time in an output folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path
from typing import IO

from atr_moco_plugin.errors import InputError

FILE = ".lock"
_held: dict[Path, IO[str]] = {}


def lock_folder(folder: Path) -> None:
    """Take a folder for this process until it ends, however it ends.

    Only the first process of a run takes it, the one whose ``RANK`` or ``SLURM_PROCID`` is 0. The
    operating system holds the lock on a file in the folder and drops it when the process ends.
    Child processes, such as the workers of a loader, do not hold it. A file system without locks
    gives a warning instead.

    Args:
        folder: the folder, made where it is missing.

    Raises:
        InputError: if another process has it, with its id and machine.
    """
    if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") != "0":
        return
    folder = folder.resolve()
    if folder in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+")
    except OSError:
        return  # whatever writes there next reports it
    try:
        # Not `flock`, whose locks pass on to children and so outlive the process.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as ex:
        if ex.errno not in (errno.EACCES, errno.EAGAIN):
            warnings.warn(
                f"{folder} cannot be locked ({ex.strerror}): see to it that no other run uses it.",
                stacklevel=2,
            )
            return
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise InputError(
            f"{folder} is in use by {holder}: wait for its end, or give another output folder."
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[folder] = file
