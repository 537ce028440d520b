"""A run whose matching loss waits: its curves, its figures, its checkpoints and its bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atr_moco_plugin.criterion.momentum_factor import cosine_momentum
from atr_moco_plugin.hosts.fairseq2.evaluation.checkpoint import open_checkpoint
from atr_moco_plugin.hosts.fairseq2.export import export_run
from atr_moco_plugin.retriever.exported import ExportOptions

Run = Callable[..., int]
LATE = ("criterion.config.atm_start=3", "criterion.config.atm_pairs=one")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def state(run: Path, step: int) -> dict:
    file = run / "checkpoints" / f"step_{step}/model/pp_00/tp_00/sdp_00.pt"
    return torch.load(file, weights_only=True)


def test_a_run_in_which_it_begins_and_a_resume_across_the_start(
    run: Run, tmp_path: Path, evaluation: Callable[..., int], capsys
) -> None:
    reranked = ("evaluation.rerank_while_training=true", "regime.score_metric=reranked_r_sum")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert run(whole, *LATE, *reranked) == 0
    train = lines(whole / "metrics" / "train.jsonl")
    assert ["ATM Loss" in record for record in train] == [False, False, False, True]
    assert all("ATC Loss" in record and "NaN" not in json.dumps(record) for record in train)
    valid = lines(whole / "metrics" / "valid.jsonl")
    assert valid[0]["Re-ranked R-sum"] == valid[0]["R-sum"]  # nothing is re-ranked

    assert not open_checkpoint(whole / "checkpoints" / "step_2").matches
    assert open_checkpoint(whole / "checkpoints" / "step_4").matches
    assert export_run(whole / "checkpoints" / "step_2", ExportOptions()).config.score is None
    assert export_run(whole / "checkpoints" / "step_4", ExportOptions()).config.score is not None
    capsys.readouterr()
    assert evaluation(tmp_path / "out", f"run={whole / 'checkpoints' / 'step_2'}") == 0
    assert "the matching loss had not begun when the checkpoint" in capsys.readouterr().err

    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    (resumed / "checkpoints" / "scores" / "step_4.txt").unlink()
    assert run(resumed, *LATE, *reranked) == 0
    found = state(resumed, 4)
    for name, value in state(whole, 4).items():
        assert torch.equal(value, found[name]), name


def test_epochs_that_end_a_run_are_its_length(run: Run, tmp_path: Path, capsys) -> None:
    schedule = "criterion.config.momentum_schedule=cosine"
    # Three steps of 8 of the 30 pairs an epoch.
    assert run(tmp_path, schedule, "regime.num_data_epochs=1", "regime.num_steps=400") == 0
    shown = "".join(capsys.readouterr().err.split())
    assert "endstherunafter3stepsandnotafterthe400" in shown
    train = lines(tmp_path / "metrics" / "train.jsonl")
    expected = [cosine_momentum(0.95, step, 3) for step in range(3)]
    assert [x["Momentum"] for x in train] == pytest.approx(expected, abs=1e-4)


def test_a_run_in_which_it_never_begins_says_so(run: Run, tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as warned:
        assert run(tmp_path, "criterion.config.atm_start=auto") == 0
    said = [str(w.message) for w in warned]
    assert any("not begun after 3 of 4 steps" in x for x in said)
    assert any("not begun after 4 of 4 steps" in x for x in said)
    assert any("test is not re-ranked: the matching loss had not begun" in x for x in said)
    result = json.loads((tmp_path / "retrieval.json").read_text())
    assert "reranked" not in result["splits"]["test"]
