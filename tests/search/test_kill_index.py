"""An index that was killed at random moments, and one that two processes filled."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from tests.search.kill_index import content, differences, kill_and_compare, write_sounds

pytestmark = pytest.mark.slow  # each starts several processes


def test_kills_change_nothing(tmp_path: Path) -> None:
    partial, found = kill_and_compare(tmp_path, count=1000, kills=6, seed=1)
    assert partial and not found


class Ranks:
    """``index`` by ``torchrun`` or alone, over the same sounds."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.bundle = make_bundle(folder / "bundle", hop_seconds=0.5)
        write_sounds(folder / "sounds", count)

    def start(self, index: str, processes: int, **environment: str) -> subprocess.Popen[str]:
        launch = [
            "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        ]  # fmt: skip
        options = [
            "-m", "atr_moco_plugin", "index", str(self.folder / "sounds"), "--model",
            str(self.bundle), "--index", str(self.folder / index), "--device", "cpu", "--json",
            "--batch-size", "4",
        ]  # fmt: skip
        command = [sys.executable, *(launch if processes > 1 else []), *options]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def run(self, index: str, processes: int) -> dict[str, object]:
        out, err = (running := self.start(index, processes)).communicate(timeout=300)
        assert running.returncode == 0, err
        report: dict[str, object] = json.loads(out)
        del report["wall_seconds"]
        return report


def test_processes_share_the_work_and_end_with_the_same_index(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 250)
    assert ranks.run("two", 2) == ranks.run("one", 1)
    assert not differences(content(tmp_path / "one"), content(tmp_path / "two"))
    again = ranks.run("two", 2)
    assert (again["new"], again["unchanged"]) == (0, 250)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_all_and_the_index_goes_on(tmp_path: Path, rank: int) -> None:
    ranks = Ranks(tmp_path, 1500)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Without torchrun, which would end the other one before it has said why.
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [ranks.start("index", 1, RANK=str(k), LOCAL_RANK=str(k), **world) for k in (0, 1)]
    err = running[0].stderr
    assert err is not None
    text = ""
    while "windows" not in text:  # of the bar
        text += err.read(20)
    running[rank].kill()
    _, err_of_other = running[1 - rank].communicate(timeout=100)
    assert running[1 - rank].returncode == 2
    assert "ERROR: Another process of this run has ended" in err_of_other
    running[rank].communicate()
    report = ranks.run("index", 2)
    broken = 38
    assert report["new"] == 1500 - int(str(report["unchanged"]))
    assert len(report["broken"]) == broken  # type: ignore[arg-type]
