"""A training clip that cannot be decoded is skipped, counted and named at the end of the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fairseq2")

from atr_moco_plugin.data.loading.skipped import SkippedClips, read_skipped
from atr_moco_plugin.hosts.fairseq2.runs import resume

Run = Callable[..., int]

SOUNDS = ["a dog barks", "rain falls", "a bell rings", "birds sing"]
TRAIN, BAD = 20, 2


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Training clips of which two have NaN samples, which their headers do not show."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(TRAIN + 4):
        wave = rng.uniform(-0.1, 0.1, 8_000).astype(np.float32)
        if number < BAD:
            wave[4_000] = np.nan
        name = f"clip{number:02d}.wav"
        soundfile.write(folder / name, wave, 16_000, "FLOAT")
        split = "train" if number < TRAIN else "valid"
        rows.append({"audio": name, "caption": f"{SOUNDS[number % 4]} {number}", "split": split})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="session")
def tiny_options(tiny_options: list[str]) -> list[str]:
    """Without the embedded data set's own options."""
    return [x for x in tiny_options if not x.startswith("dataset.config_overrides.")]


def of(manifest: Path) -> list[str]:
    """Arguments of a tiny run on the manifest instead of the embedded data set."""
    return ["dataset.family=manifest", f"dataset.config_overrides.root={manifest}",
            "evaluation.test_split=null", "dataset.batch_size=4", "regime.num_steps=10",
            "regime.validate_every_n_steps=10", "regime.checkpoint_every_n_steps=10"]  # fmt: skip


def test_the_end_of_a_run_names_what_was_skipped(
    run: Run, manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", *of(manifest)) == 0
    said = capfd.readouterr().err
    assert "2 training clip(s) could not be read" in said
    assert "'clip00.wav', 'clip01.wav'" in said
    skipped = read_skipped(tmp_path / "out")
    assert list(skipped) == ["clip00.wav", "clip01.wav"]
    assert all("has NaN or infinite samples" in reason for reason in skipped.values())


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_that_begins_anew_forgets_the_clips_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Clips of other data, or long mended, were named as those that this run had skipped."""
    SkippedClips(tmp_path, 1)("a", "is damaged")
    if saved:
        (tmp_path / "checkpoints" / "step_2").mkdir(parents=True)
    monkeypatch.setattr(resume, "problem_with_checkpoint", lambda folder: None)
    monkeypatch.setattr(resume, "_check_processes", lambda *_: None)
    gangs: Any = SimpleNamespace(
        root=SimpleNamespace(size=1, device=torch.device("cpu")), sdp=SimpleNamespace(size=1)
    )
    resume.prepare_resume(tmp_path, tmp_path / "checkpoints", gangs)
    assert read_skipped(tmp_path) == ({"a": "is damaged"} if saved else {})


@pytest.mark.slow
def test_too_many_on_one_process_stop_all_of_them(
    manifest: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(tmp_path / "out"), "--no-rich", "--config"]
    config = [*tiny_options, *of(manifest), "dataset.max_bad_clips=0"]
    done = subprocess.run(
        [sys.executable, *launcher, *recipe, *config],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    # Whichever process it was.
    assert "1 clips cannot be used, more than max_bad=0" in done.stderr


def test_processes_are_put_together_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    SkippedClips(tmp_path, 0)("b", "why")
    SkippedClips(tmp_path, 1)("a", "is damaged\nthere")
    SkippedClips(tmp_path, 1)("b", "why")
    with (tmp_path / "skipped_clips" / "process_1.jsonl").open("a") as file:
        file.write('{"clip": "c", "rea')
    assert read_skipped(tmp_path) == {"a": "is damaged\nthere", "b": "why"}


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "skipped_clips").write_text("a file in its place")
    SkippedClips(tmp_path, 0)("b", "why")
    assert read_skipped(tmp_path) == {}
