"""The scripts in examples/ run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import ClapModel

ROOT = Path(__file__).parents[1]


def run_example(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def logged_steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("name", "lines"), [("clap_trainer.py", 90), ("plain_loop.py", 60)])
def test_the_scripts_are_short(name: str, lines: int) -> None:
    text = (ROOT / "examples" / name).read_text()
    assert len(text.splitlines()) <= lines


@pytest.mark.slow
@pytest.mark.slow
def test_the_trainer_script_runs(tmp_path: Path) -> None:
    out = run_example("clap_trainer.py", str(tmp_path), "--steps", "10")
    figures = re.findall(r"^(\w+) +([\d.]+) -> +([\d.]+)$", out, re.M)
    assert [name for name, *_ in figures] == ["a2t_r1", "a2t_r10", "t2a_r1", "t2a_r10", "r_sum"]
    assert "'loss_atc'" in out and "'loss'" in out
    assert logged_steps(tmp_path / "rank.jsonl") == [10]
    assert (tmp_path / "checkpoint-10" / "model.safetensors").exists()
    assert ClapModel.from_pretrained(tmp_path / "clap").config.projection_dim == 64


@pytest.mark.slow
@pytest.mark.slow
def test_the_plain_loop_runs(tmp_path: Path) -> None:
    out = run_example("plain_loop.py", str(tmp_path), "1")
    assert re.search(r"before: r_sum [\d.]+ of 600\nepoch 1: loss .*\nafter: r_sum", out)
    assert logged_steps(tmp_path / "rank.jsonl") == [5]
