"""Gradient caching under fairseq2: the same run in less memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq2")

Run = Callable[..., int]
CHUNKS = "trainer.grad_cache.chunk_size=3"


def losses(out: Path) -> list[float]:
    lines = (out / "metrics" / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["Loss"] for line in lines]


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt")
    state = torch.load(file, weights_only=True)
    return state.get("model", state)


def test_a_run_in_chunks_is_the_same_run(run: Run, trained: Path, tmp_path: Path) -> None:
    assert run(tmp_path, CHUNKS) == 0
    assert losses(tmp_path) == pytest.approx(losses(trained), abs=1e-4)


@pytest.mark.slow
def test_a_run_in_chunks_resumes_where_it_was(run: Run, tmp_path: Path) -> None:
    dropout = "model.config_overrides.text.config.hidden_dropout_prob=0.2"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole, CHUNKS, dropout) == 0
    shutil.copytree(whole, parts)
    # As if it had been stopped before step 4.
    shutil.rmtree(parts / "checkpoints" / "step_4")
    (parts / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(parts, CHUNKS, dropout) == 0
    expected = weights(whole, 4)
    for name, found in weights(parts, 4).items():
        assert not isinstance(found, torch.Tensor) or torch.equal(found, expected[name]), name


def test_a_chunk_of_nothing_is_refused(run: Run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "trainer.grad_cache.chunk_size=0") == 2
    assert "`chunk_size` is 0, expected" in capsys.readouterr().err.replace("\n", " ")


def test_chunks_of_sharded_weights_are_refused(run: Run, tmp_path: Path, capsys) -> None:
    assert run(tmp_path, CHUNKS, "trainer.data_parallelism=fsdp") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "`trainer.grad_cache.chunk_size` is 3, but `trainer.data_parallelism` is fsdp" in said
