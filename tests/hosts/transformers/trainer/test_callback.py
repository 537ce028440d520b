"""``MocoCallback``: what happens around optimizer steps, what is logged, and when a run stops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trainer_world import (
    Broken,
    make_trainer,
)
from transformers import (
    ClapModel,
    Trainer,
    TrainerCallback,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    MocoCallback,
)


def test_training_evaluates_logs_and_exports_a_plain_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.train()
    history = trainer.state.log_history
    losses = [entry for entry in history if "loss" in entry]
    assert [entry["step"] for entry in losses] == [2, 4]
    measures = [entry for entry in history if "loss_atm" in entry]
    assert [entry["step"] for entry in measures] == [2, 4]
    for entry, measured in zip(losses, measures, strict=True):  # means over the same batches
        assert entry["loss"] == pytest.approx(measured["loss_atc"] + measured["loss_atm"], abs=1e-3)
    assert measures[0]["queue_fill"] == pytest.approx((4 + 8) / 2 / 30)
    lines = [json.loads(line) for line in (tmp_path / "rank.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[1]["sources"]["text"]["rows"] == 16
    ranks = [entry for entry in history if "rank/audio_rankme" in entry]
    assert ranks[1]["rank/audio_rankme"] == lines[1]["sources"]["audio"]["raw"]["rankme"]
    scores = [entry for entry in history if "eval_r_sum" in entry]
    assert len(scores) == 2 and scores[0]["eval_clips"] == 4 and scores[0]["eval_captions"] == 20

    trainer.model.save_pretrained(tmp_path / "clap")
    plain = ClapModel.from_pretrained(tmp_path / "clap").eval()
    batch = trainer.data_collator([trainer.eval_dataset[i] for i in range(0, 20, 5)])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "input_features")}
    with torch.no_grad():
        expected, output = trainer.model.eval()(**batch), plain(**inputs)
    assert torch.allclose(output.audio_embeds, expected["audio_embeds"], atol=1e-6)
    assert torch.allclose(output.text_embeds, expected["text_embeds"], atol=1e-6)


def test_measures_are_logged_at_the_end_of_an_epoch_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, logging_strategy="epoch", max_steps=4)
    trainer.train()
    measures = [entry for entry in trainer.state.log_history if "loss_atm" in entry]
    losses = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses and [entry["step"] for entry in measures] == losses


def test_the_momentum_copies_move_once_an_optimizer_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1, gradient_accumulation_steps=3)
    model = trainer.model.criterion
    start = model.audio_m.module.projection.linear1.weight.clone()
    trainer.train()
    online = model.model.audio.projection.linear1.weight
    moved = model.audio_m.module.projection.linear1.weight
    assert not torch.equal(online, start)
    assert torch.allclose(moved, start.lerp(online.detach(), 0.1), atol=1e-7)
    assert model.num_steps.item() == 1 and len(model.audio_queue) == 12
    assert model.total_steps == 1


def test_a_temperature_that_runs_away_is_clipped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1)
    temperature = trainer.model.criterion.temperature
    temperature.data.fill_(0.499)
    trainer.add_callback(Push(temperature))
    trainer.callback_handler.callbacks.reverse()  # its hook comes before the criterion's
    trainer.train()
    assert temperature.item() == 0.5


class Push(TrainerCallback):
    """Stands for an optimizer step that goes too far."""

    def __init__(self, temperature: nn.Parameter) -> None:
        self._temperature = temperature

    def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        def push(*_: Any) -> None:
            self._temperature.data.fill_(3.0)

        optimizer.optimizer.register_step_post_hook(push)


def break_clips(trainer: Trainer, passes: set[int]) -> None:
    """Have the collator hand over a NaN in these batches."""
    collate, number = trainer.data_collator, [0]

    def broken(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collate(examples)
        number[0] += 1
        if number[0] in passes:
            batch["input_features"][1] = math.nan
        return batch

    trainer.data_collator = broken


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2, logging_steps=1)
    break_clips(trainer, {3})
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    message = str(caught.value)
    assert "The loss of step 3 is nan, in a batch of the clips 'train-0" in message
    assert f"The last good checkpoint is {tmp_path / 'checkpoint-2'}." in message
    state = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(bool(x.isfinite().all()) for x in state.values())

    again = make_trainer(tmp_path, max_steps=6)
    with torch.no_grad():
        again.model.criterion.model.text.projection.linear1.weight[0, 0] = math.nan
    with pytest.raises(
        FloatingPointError, match="The loss of step 1 is nan.*model.text.projection"
    ):
        again.train()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_that_are_not_finite_are_left_out_when_asked(tmp_path: Path, accumulate: int) -> None:
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=accumulate, logging_steps=1)
    trainer.pop_callback(MocoCallback)
    trainer.add_callback(MocoCallback(trainer, rank_every=4, max_skipped_steps=1))
    break_clips(trainer, {3})
    step = 3 if accumulate == 1 else 2
    with pytest.warns(UserWarning, match=f"loss of step {step} is nan.*number 1 of the 1"):
        trainer.train()
    assert trainer.state.global_step == 4
    # The running statistics of CLAP's batch norm too.
    assert all(bool(x.isfinite().all()) for x in trainer.model.state_dict().values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_without_bad_clips_and_names_them(tmp_path: Path, workers: int) -> None:
    trainer = make_trainer(
        tmp_path, eval_strategy="steps", eval_steps=4, max_steps=8, per_device_eval_batch_size=8,
        dataloader_num_workers=workers,
    )  # fmt: skip
    trainer.train_dataset = Broken(trainer.train_dataset, {2})
    trainer.eval_dataset = Broken(trainer.eval_dataset, {1})
    with pytest.warns(UserWarning) as caught:
        trainer.train()
    told = [str(warning.message) for warning in caught]
    ends = [text for text in told if "1 clips could not be used" in text]
    assert len(ends) == 1 and "'train-00002'" in ends[0]
    if not workers:  # else they go to standard error
        assert sum("'train-00002' is left out" in text for text in told) == 1
    scores = [entry for entry in trainer.state.log_history if "eval_r_sum" in entry]
    assert [entry["eval_clips"] for entry in scores] == [3, 3]
    assert [entry["eval_skipped_rows"] for entry in scores] == [5, 5]
    assert trainer.state.global_step == 8


def test_too_many_bad_clips_stop_a_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.callback_handler.callbacks[-1].max_bad_clips = 0
    trainer.train_dataset = Broken(trainer.train_dataset, {0, 1})
    with pytest.warns(), pytest.raises(InputError, match="More than 0 clips.*max_bad_clips"):
        trainer.train()
    other = make_trainer(tmp_path)
    other.callback_handler.callbacks[-1].max_bad_clips = 0
    other.eval_dataset = Broken(other.eval_dataset, {1})
    with pytest.warns(), pytest.raises(InputError, match="left out of an evaluation"):
        other.evaluate()
