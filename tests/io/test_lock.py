"""One process at a time in a folder: the lock ends with its process and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.lock import FolderLock, lock_folder

# Holds a folder, has a child as a loader has workers, and says when it does.
HOLDER = """
import os, sys, time
from pathlib import Path
from atr_moco_plugin.io.lock import lock_folder
lock_folder(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, 9)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    with pytest.raises(InputError, match=rf"out is in use by process {holder.pid} on \S+: wait"):
        lock_folder(folder)
    with pytest.raises(InputError, match="is in use"):
        lock_folder(tmp_path / "elsewhere" / ".." / "out")
    holder.kill()
    holder.wait()
    lock_folder(folder)  # though a child of it lives on
    lock_folder(folder)  # again is nothing new


def test_the_first_process_of_a_run_takes_it_for_all(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID"):
        with monkeypatch.context() as context:
            context.setenv(name, "1")
            lock_folder(tmp_path / "out")
            context.setenv(name, "0")
            with pytest.raises(InputError, match="is in use"):
                lock_folder(tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_for_its_writer_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock_folder(tmp_path / "file" / "out")


def test_a_file_system_without_locks_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .No locks available."):
        lock_folder(tmp_path)


def test_a_lock_that_is_released(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")  # it is for any rank
    with pytest.raises(InputError, match=rf"out is in use by process {holder.pid} on \S+: wait"):
        FolderLock(tmp_path / "out")
    lock = FolderLock(tmp_path / "free")
    with pytest.raises(InputError, match="free is in use by this process already: close it there"):
        FolderLock(tmp_path / "out" / ".." / "free")
    command = f"""
from pathlib import Path
from atr_moco_plugin.io.lock import FolderLock
FolderLock(Path({str(tmp_path / "free")!r}))
"""
    taken = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in taken.stderr
    lock.release()
    lock.release()
    subprocess.run([sys.executable, "-c", command], check=True)
    FolderLock(tmp_path / "free").release()


def test_a_folder_that_cannot_be_made_is_told_by_a_lock_that_is_released(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="out cannot be written .Not a directory.: give a folder"):
        FolderLock(tmp_path / "file" / "out")
