"""The script for a GPU, in miniature on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import BENCHMARKS
from benchmarks.gpu import Parts

ROOT = Path(__file__).parents[2]


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=ROOT, capture_output=True,
        text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("fairseq2") is None, reason="needs fairseq2")
def test_all_parts_run_and_are_written(tmp_path: Path) -> None:
    done = script(str(tmp_path / "out.json"), "--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stderr[-2000:]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [x["problem"] for x in written["parts"]] == [None] * (len(BENCHMARKS) + 4)
    assert len(written["rows"]) >= len(BENCHMARKS)
    options = written["layer_options"]
    assert options["activation checkpointing"]["mib"] < options["plain"]["mib"]
    training = written["training"]
    # On a CPU the second half is the same to the last bit, whether it was resumed or not.
    assert training["last_loss_resumed"] == training["last_loss"] > 0
    assert all(row["name"] in done.stdout for row in written["rows"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = script(str(tmp_path / "out.json"))
    assert done.returncode == 2
    assert "PyTorch finds no GPU here" in done.stderr


def test_a_part_that_fails_is_reported_and_the_others_run(capsys) -> None:
    parts = Parts(budget=60)

    def fails() -> None:
        raise RuntimeError("out of memory\nand much more")

    assert parts.run("first", fails) is None
    assert parts.run("second", lambda: 3) == 3
    assert parts.run("third", lambda: 4, keep=100) is None
    problems = [x["problem"] for x in parts.done]
    assert problems == ["RuntimeError: out of memory", None, "no time left"]
    assert "first: RuntimeError: out of memory" in capsys.readouterr().out
