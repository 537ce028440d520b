"""Faults planted in a run of the recipe: what it says, what it leaves, and how it goes on."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.hosts.fairseq2.training import safety
from atr_moco_plugin.hosts.fairseq2.training.data import PairReader
from atr_moco_plugin.hosts.fairseq2.training.unit import RetrievalTrainUnit

Run = Callable[..., int]
SHORT = ("regime.validate_every_n_steps=1000", "regime.checkpoint_every_n_steps=2")


def errors(capsys) -> str:
    """The one line in which a run ended."""
    written = capsys.readouterr().err
    (line,) = [line for line in written.splitlines() if " ERROR: " in line]
    assert "Traceback" not in written
    return line


def state_of(checkpoint: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    (file,) = (checkpoint / "model").rglob("*.pt")
    return file, torch.load(file, weights_only=True)


def break_clips(monkeypatch: pytest.MonkeyPatch, steps: set[int], rank: int = 0) -> list[int]:
    """Have a loader hand over a clip with a NaN in these steps; returns the ids it had."""
    read, number, ids = PairReader.__next__, [0], []

    def broken(reader: PairReader) -> list[PairBatch]:
        batches = read(reader)
        number[0] += 1
        if number[0] in steps and int(os.environ.get("RANK", "0")) == rank:
            batches[0].waveforms[3, 50] = math.nan
            ids.append(int(batches[0].clip_ids[3]))
        return batches

    monkeypatch.setattr(PairReader, "__next__", broken)
    return ids


def test_a_broken_clip_stops_the_run_with_its_key_and_the_last_good_checkpoint(
    run: Run, tmp_path: Path, monkeypatch, capsys
) -> None:
    break_clips(monkeypatch, {3})
    assert run(tmp_path, *SHORT) != 0
    line = errors(capsys)
    assert "The loss of step 3 is nan, in a batch of the clips '" in line
    assert "NaN or infinite are the audio embeddings of 'train" in line, line
    assert f"The last good checkpoint is {tmp_path / 'checkpoints' / 'step_2'}." in line
    assert [x.name for x in (tmp_path / "checkpoints").glob("step_*")] == ["step_2"]
    state = state_of(tmp_path / "checkpoints" / "step_2")[1]
    assert all(bool(x.isfinite().all()) for x in state.values())


def test_steps_are_left_out_when_asked(run: Run, tmp_path: Path, monkeypatch, capsys) -> None:
    break_clips(monkeypatch, {2, 3})
    assert run(tmp_path, "safety.max_skipped_steps=2", "hooks.rank.every=4") == 0
    written = capsys.readouterr().err
    for step, number in ((2, 1), (3, 2)):
        (line,) = [x for x in written.splitlines() if f"The loss of step {step} is nan" in x]
        assert " WARNING: " in line and f"left out, number {number} of the 2" in line
    state = state_of(tmp_path / "checkpoints" / "step_4")[1]
    assert all(bool(x.isfinite().all()) for x in state.values())
    # Two of the four steps were made.
    assert int(state["num_steps"]) == 2 and (state["audio_queue.clip_ids"][:32] == -1).sum() == 2
    records = (tmp_path / "metrics" / "train.jsonl").read_text().splitlines()
    losses = [json.loads(line)["Loss"] for line in records]
    assert [loss > 0 for loss in losses] == [True, False, False, True], losses
    record = json.loads((tmp_path / "rank.jsonl").read_text())
    assert record["sources"]["text"]["raw"]["rankme"] > 0


def test_a_broken_gradient_stops_the_run(run: Run, tmp_path: Path, monkeypatch, capsys) -> None:
    process = RetrievalTrainUnit.process_batch

    def broken(unit, batch, bag):
        loss, targets = process(unit, batch, bag)
        if unit._step_nr == 3:
            loss.register_hook(lambda gradient: gradient * math.inf)
        return loss, targets

    monkeypatch.setattr(RetrievalTrainUnit, "process_batch", broken)
    assert run(tmp_path, *SHORT) != 0
    line = errors(capsys)
    assert "The loss of step 3 is finite, but the gradient of " in line
    assert "model.audio." in line and "step_2." in line


@pytest.mark.slow
def test_a_broken_checkpoint_is_told_from_a_sound_one(run: Run, tmp_path: Path, capsys) -> None:
    # A schedule that does not follow the number of steps.
    schedule = ("lr_scheduler.config.cycle_len=20", "lr_scheduler.config.num_warmup_steps=1")
    assert run(tmp_path, *schedule) == 0
    folder = tmp_path / "checkpoints"
    file, state = state_of(folder / "step_4")
    # What an earlier resume may have set aside.
    (folder / "step_3.damaged" / "model").mkdir(parents=True)
    weight = state["model.text.projection.weight"]
    state["model.text.projection.weight"] = weight.index_fill(0, torch.tensor(0), math.nan)
    torch.save(state, file)
    capsys.readouterr()
    assert run(tmp_path, *SHORT, *schedule, "regime.num_steps=6", "safety.max_skipped_steps=5") != 0
    line = errors(capsys)
    assert "The loss of step 5 is nan" in line
    assert "before the step was made: model.text.projection.weight." in line
    assert f"The last good checkpoint is {folder / 'step_2'}: move later ones away" in line

    state["model.text.projection.weight"] = weight
    state["text_queue.embeddings"][7] = math.nan
    torch.save(state, file)
    assert run(tmp_path, *SHORT, *schedule, "regime.num_steps=6") != 0
    line = errors(capsys)
    assert "step 4" in line and "1 of the 32 rows of `text_queue.embeddings`" in line


def test_a_damaged_checkpoint_hides_no_message_of_a_nan(tmp_path: Path, monkeypatch) -> None:
    """Its own error took the message's place, on the first process alone."""
    files = [tmp_path / f"step_{step}" / "model" / "rank_0.pt" for step in (2, 4)]
    for file in files:
        file.parent.mkdir(parents=True)
        torch.save({"weight": torch.ones(2)}, file)
    monkeypatch.setattr(safety, "checkpoint_dir", lambda context: tmp_path)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    resolver: Any = SimpleNamespace(resolve=lambda kind: optimizer)
    guard = safety.make_guard(SimpleNamespace(resolver=resolver), model)
    torch.nn.init.constant_(model.weight, math.nan)

    def said() -> str:
        loss = model(torch.ones(1, 2)).sum()
        guard.watch(loss, torch.tensor([7]))
        loss.backward()
        nan = "The loss of step 1 is nan.* the clips 7"
        with pytest.raises(safety.RecipeError, match=nan) as error:
            optimizer.step()
        return str(error.value)

    assert f"The last good checkpoint is {tmp_path / 'step_4'}" in said()
    os.truncate(files[1], files[1].stat().st_size // 2)
    assert f"The last good checkpoint is {tmp_path / 'step_2'}" in said()
    files[0].unlink()
    assert f"No checkpoint in {tmp_path} can be read and is without NaN" in said()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fairseq2 scales losses on GPUs alone")
def test_fp16_whose_gradients_overflow_trains_on(run: Run, tmp_path: Path, capsys) -> None:
    options = ("trainer.mixed_precision.mode=auto", "trainer.mixed_precision.dtype=float16")
    assert run(tmp_path, *SHORT, *options, "trainer.fp16_loss_scale=[1e38,1e-4]") == 0
    written = capsys.readouterr().err
    assert "Overflow detected" in written and "left out" not in written


def main(out: str, *options: str) -> None:
    """The recipe, with a clip that one process alone finds broken."""
    from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
    from atr_moco_plugin.recipes.toy import ToyRecipeConfig

    break_clips(pytest.MonkeyPatch(), {2, 3}, rank=1)
    sys.argv = ["recipe", out, "--no-rich", "--config", *options]
    run_recipe(ToyRecipeConfig)


@pytest.mark.slow
def test_two_processes_stop_together(tiny_options, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [*tiny_options, *SHORT, "safety.max_skipped_steps=1"]
    result = subprocess.run(
        [*command, __file__, str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode != 0
    for rank in (0, 1):
        log = (tmp_path / "logs" / f"rank_{rank}.log").read_text()
        assert "The loss of step 3 is nan" in log, result.stderr[-2000:]
        assert "audio embeddings of 'train" in log and "step_2." in log
    first = (tmp_path / "logs" / "rank_0.log").read_text()
    assert "The loss of step 2 is nan" in first and "number 1 of the 1" in first
    state = state_of(tmp_path / "checkpoints" / "step_2")[1]
    assert all(bool(x.isfinite().all()) for x in state.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
