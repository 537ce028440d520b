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
from atr_moco_plugin.io.processes import is_first_process

FILE = ".lock"


class FolderInUseError(InputError):
    """Another process has a folder.

    Args:
        folder: the folder.
        holder: the process, by its id and machine where it has left them.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by {holder}: wait for its end, or give another output folder."
        )
        self.holder = holder


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
    if not is_first_process():
        return
    folder = folder.resolve()
    if folder in _held:
        return
    try:
        _held[folder] = _locked(folder)
    except OSError:
        return  # whatever writes there next reports it


class FolderLock:
    """A folder taken by this process, whatever its rank, until it is released.

    ::

        lock = FolderLock(folder)
        ...
        lock.release()

    Otherwise as :func:`lock_folder`. The lock also ends with the process.

    Args:
        folder: the folder, made where it is missing.

    Raises:
        FolderInUseError: if another process has it.
        InputError: if this process has it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        if self._folder in _held:
            raise InputError(f"{folder} is in use by this process already: close it there first.")
        try:
            _held[self._folder] = _locked(self._folder)
        except OSError as ex:
            raise InputError(
                f"{folder} cannot be written ({ex.strerror}): give a folder that can be."
            ) from None

    def release(self) -> None:
        """Let others take the folder; again is nothing new."""
        file = _held.pop(self._folder, None)
        if file is not None:
            file.close()


def _locked(folder: Path) -> IO[str]:
    """The locked file of a folder; no lock, and a warning, on a file system that has none.

    Raises:
        FolderInUseError: if another process has it.
        OSError: if the file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / FILE).open("a+")
    try:
        # Not `flock`, whose locks pass on to children and so outlive the process.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as ex:
        if ex.errno not in (errno.EACCES, errno.EAGAIN):
            warnings.warn(
                f"{folder} cannot be locked ({ex.strerror}): see to it that no other run uses it.",
                stacklevel=3,
            )
            return file
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FolderInUseError(folder, holder) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
