"""A run that learns from another one, by a key of its recipe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq2")

from torch.testing import assert_close

from atr_moco_plugin.teaching import read_teacher

Run = Callable[..., int]


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (run / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    return torch.load(file, weights_only=True)


def test_a_run_teaches_a_second_one_which_goes_on_exactly(
    run: Run, evaluation: Run, trained: Path, tmp_path: Path, capsys
) -> None:
    shutil.copytree(trained, tmp_path / "first")
    keys = [f"criterion.config.teachers=[{tmp_path / 'first'}]", f"init={trained}"]
    keys.append("criterion.config.supervised_weight=0")
    assert run(tmp_path / "second", *keys) == 0
    records = (tmp_path / "second" / "metrics" / "train.jsonl").read_text().splitlines()
    for record in map(json.loads, records):
        # The contrastive loss is shown, and has no weight.
        total = record["Teacher Loss"] + record["ATM Loss"]
        assert record["Loss"] == pytest.approx(total) and record["ATC Loss"] > 0
    (file,) = (tmp_path / "second" / "teachers").iterdir()

    # What an evaluation saves is a teacher too. It embeds the beginning of a long clip.
    saved = tmp_path / "saved"
    options = [f"run={trained}", "split=train", "save_embeddings=true", "rerank_k=[]"]
    assert evaluation(saved, *options) == 0
    own = read_teacher(file).teacher, read_teacher(saved / "embeddings.safetensors").teacher
    for kind in ("clips", "captions"):
        first, second = (getattr(x, kind) for x in own)
        assert torch.equal(first.ids, second.ids)
        if kind == "captions":
            assert_close(first.find(first.ids), second.find(first.ids), atol=1e-5, rtol=0)
    embeddings = f"criterion.config.teachers=[{saved / 'embeddings.safetensors'}]"
    assert run(tmp_path / "third", embeddings, "regime.num_steps=2") == 0

    # Stopped before step 4; the teacher is gone by then, but its embeddings are not.
    stopped = tmp_path / "second"
    end = state(stopped, 4)
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(stopped / "checkpoints" / "step_4")
    (stopped / "checkpoints" / "scores" / "step_4.txt").unlink()
    capsys.readouterr()
    assert run(stopped, *keys) == 0
    assert "embedded before, and is taken" in " ".join(capsys.readouterr().err.split())
    for name, value in state(stopped, 4).items():
        assert torch.equal(value, end[name]), name


def test_other_teachers_data_and_mixtures_are_refused_in_a_sentence(
    run: Run, trained: Path, tmp_path: Path, capsys
) -> None:
    teachers = f"criterion.config.teachers=[{trained}]"
    for keys, said in (
        ([teachers, "dataset.config_overrides.seed=5"], "was trained on other data than toy"),
        ([teachers, "dataset.mix.probability=0.5"], "not of mixtures of two clips"),
        ([f"criterion.config.teachers=[{tmp_path}/no]"], "there is no such file or folder"),
    ):
        capsys.readouterr()
        assert run(tmp_path / "out", *keys) in (1, 2)
        assert said in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").glob("checkpoints/step_*"))
