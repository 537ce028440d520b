"""Checkpoints of ``Trainer``: resumed to the last bit; broken ones are passed over or refused."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from trainer_world import (
    make_trainer,
)
from transformers import (
    TrainingArguments,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    last_checkpoint,
)
from atr_moco_plugin.hosts.transformers.trainer.resume import last_good


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    options = {
        "save_strategy": "steps",
        "save_steps": 2,
        "gradient_accumulation_steps": 2,
        "eval_strategy": "steps",  # evaluations must not move the draws of hard negatives
        "eval_steps": 1,
    }
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()  # writes the checkpoint of step 2 on its way
    resumed = make_trainer(tmp_path / "resumed", **options)
    start = {name: value.clone() for name, value in resumed.model.state_dict().items()}
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_equal_states(whole.model, resumed.model)
    assert len(resumed.model.criterion.audio_queue) == 30  # of 4 steps x 2 x 4 rows
    assert resumed.model.criterion.num_steps.item() == 4
    saved = load_file(checkpoint / "model.safetensors")
    assert saved["criterion.num_steps"].item() == 2
    name = "criterion.text_m.module.projection.linear1.weight"
    assert not torch.equal(saved[name], start[name])
    lines = (tmp_path / "resumed" / "rank.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4]

    # What a kill while a checkpoint is written leaves, and what a bad disk does.
    folder = tmp_path / "whole"
    assert last_checkpoint(folder) == str(folder / "checkpoint-4")
    (folder / "checkpoint-4" / "scheduler.pt").unlink()
    with pytest.warns(UserWarning, match="checkpoint-4 has no scheduler.pt; it is passed over"):
        assert last_checkpoint(folder) == str(checkpoint)
    optimizer = checkpoint / "optimizer.pt"
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 1
    optimizer.write_bytes(data)
    with pytest.warns(), pytest.raises(ValueError, match="cannot go on from any of them"):
        last_checkpoint(folder)
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize("criterion", ["dcl", "siglip", "sogclr"])
def test_a_rival_goes_on_to_the_last_bit(tmp_path: Path, criterion: str) -> None:
    options = {"criterion": criterion, "save_strategy": "steps", "save_steps": 2}
    options |= {"eval_strategy": "steps", "eval_steps": 1}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_equal_states(whole.model, resumed.model)
    if criterion == "sogclr":
        assert 4 < len(whole.model.criterion.clip_sums) <= 16
        assert int(whole.model.criterion.clip_sums.data_fingerprint) != 0
        assert whole.model.criterion.gamma == pytest.approx(0.2)


def write_checkpoint(folder: Path, *processes: int) -> Path:
    """What ``Trainer`` needs of one, with the random states of these processes, or of one alone."""
    folder.mkdir()
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    (folder / "trainer_state.json").write_text("{}")
    states = [f"rng_state_{number}.pth" for number in processes] or ["rng_state.pth"]
    for name in ("optimizer.pt", "scheduler.pt", *states):
        torch.save({}, folder / name)
    return folder


def test_the_last_good_checkpoint_is_the_newest_without_nan(tmp_path: Path) -> None:
    for step, value in (("2", 1.0), ("10", math.nan), ("best", 1.0)):
        folder = write_checkpoint(tmp_path / f"checkpoint-{step}")
        save_file({"weight": torch.full((2,), value)}, folder / "model.safetensors")
    assert str(tmp_path / "checkpoint-10") in last_good(tmp_path, sound=True)
    assert str(tmp_path / "checkpoint-2") in last_good(tmp_path, sound=False)


def test_a_checkpoint_without_a_random_state_is_not_whole(tmp_path: Path) -> None:
    older = write_checkpoint(tmp_path / "checkpoint-2", 0, 1)
    newest = write_checkpoint(tmp_path / "checkpoint-4", 0)
    assert last_checkpoint(tmp_path) == str(newest)  # it does not say how many there were
    for folder in (older, newest):
        kept = {"stateful_callbacks": {"atr_moco_plugin": {"processes": 2}}}
        (folder / "trainer_state.json").write_text(json.dumps(kept))
    with pytest.warns(UserWarning, match="checkpoint-4 has no rng_state_1.pth; it is passed over"):
        assert last_checkpoint(tmp_path) == str(older)


def test_a_checkpoint_that_lacks_a_further_part_is_not_whole(tmp_path: Path) -> None:
    older, newest = (write_checkpoint(tmp_path / f"checkpoint-{step}") for step in (2, 4))
    (older / "own.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(newest)
    for content in (None, '{"half": '):
        if content is not None:
            (newest / "own.json").write_text(content)
        with pytest.warns(UserWarning, match=r"checkpoint-4 has no readable own\.json"):
            assert last_checkpoint(tmp_path, parts=["own.json"]) == str(older)


def test_other_options_of_the_criterion_are_refused(tmp_path: Path) -> None:
    options = {"criterion": "moco_atc", "save_strategy": "steps", "save_steps": 2}
    options |= {"model_options": {"alpha": 0.3}}
    make_trainer(tmp_path, **options).train()
    checkpoint = tmp_path / "checkpoint-2"

    def go_on(changed: dict[str, Any], **more: Any) -> None:
        own = {**options, "model_options": {"alpha": 0.3, **changed}, **more}
        make_trainer(tmp_path / "more", **own).train(resume_from_checkpoint=str(checkpoint))

    for changed, said in (
        ({"alpha": 0.1}, "alpha was 0.3 and is 0.1"),
        ({"momentum": 0.5, "positives": "clip"}, "positives was .* is clip; momentum was 0.9 and"),
    ):
        with pytest.raises(InputError, match=f"go on with other options: {said}"):
            go_on(changed)
    # The checkpoint has what the temperature is by now, and says what becomes of the queue.
    go_on({"temperature": 0.2}, queue_size=20)
    state = tmp_path / "more" / "checkpoint-4" / "trainer_state.json"
    assert json.loads(state.read_text())["stateful_callbacks"]["atr_moco_plugin"]["alpha"] == 0.3
    # Saved by two processes, which draw other batches than one.
    kept = json.loads((checkpoint / "trainer_state.json").read_text())
    kept["stateful_callbacks"]["atr_moco_plugin"]["processes"] = 2
    (checkpoint / "trainer_state.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="other options: processes was 2 and is 1"):
        go_on({})
    # One of an earlier version does not say them.
    state = checkpoint / "trainer_state.json"
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["atr_moco_plugin"]
    state.write_text(json.dumps(content))
    go_on({"alpha": 0.1})


@pytest.mark.parametrize("criterion", ["sogclr", "dcl"])
def test_another_length_is_warned_of_where_a_schedule_goes_by_it(
    tmp_path: Path, criterion: str, recwarn: pytest.WarningsRecorder
) -> None:
    """A schedule fell back in silence, as gamma rises again with more steps."""

    def go_on(folder: str, steps: int, checkpoint: Path | None = None) -> bool:
        recwarn.clear()
        options = {"criterion": criterion, "save_strategy": "steps", "save_steps": 2}
        trainer = make_trainer(tmp_path / folder, **options, max_steps=steps)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        told = [str(x.message) for x in recwarn if "goes on with" in str(x.message)]
        assert not told or f"to have 4 steps and goes on with {steps}" in told[0]
        assert all("gamma of `sogclr`. Give it 4 again" in x for x in told) and len(told) < 2
        return bool(told)

    assert not go_on("first", 4)
    assert not go_on("same", 4, tmp_path / "first" / "checkpoint-2")
    assert go_on("longer", 8, tmp_path / "first" / "checkpoint-2") == (criterion == "sogclr")
    assert not go_on("again", 8, tmp_path / "longer" / "checkpoint-4")  # it has 8 by now


def skip_unless_there(*options: str) -> None:
    """Skip a test of options that this version of transformers has not."""
    if missing := set(options) - {field.name for field in fields(TrainingArguments)}:
        pytest.skip(f"TrainingArguments have no {', '.join(missing)} in this version")


def test_a_checkpoint_of_another_criterion_is_refused(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    make_trainer(tmp_path, criterion="moco_atc", **options).train()
    with pytest.raises(InputError, match="The checkpoint lacks weights of this model"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_without_safetensors_is_taken_and_checked(tmp_path: Path) -> None:
    skip_unless_there("save_safetensors")
    options = {"save_strategy": "steps", "save_steps": 2, "save_safetensors": False}
    whole = make_trainer(tmp_path, **options)
    whole.train()
    newest = tmp_path / "checkpoint-4"
    weights = newest / "pytorch_model.bin"
    assert weights.is_file() and last_checkpoint(tmp_path) == str(newest)
    assert str(newest) in last_good(tmp_path, sound=False)

    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name

    state = torch.load(weights, weights_only=True)
    name = "criterion.model.text.projection.linear1.weight"
    torch.save({**state, name: state[name] * torch.nan}, weights)
    assert str(tmp_path / "checkpoint-2") in last_good(tmp_path, sound=False)

    data = bytearray(weights.read_bytes())
    # Within a tensor: what fills up a file between two of them has no checksum.
    data[data.index(state["criterion.audio_queue.embeddings"].numpy().tobytes())] ^= 1
    weights.write_bytes(data)
    with pytest.warns(UserWarning, match="pytorch_model.bin .*; it is passed over"):
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    weights.unlink()
    with pytest.warns(UserWarning, match="checkpoint-4 has no weights"):
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
