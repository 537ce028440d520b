"""A second training of one model: what of the first one it keeps, and what it is told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch.optim import AdamW
from trainer_world import Broken, make_trainer
from transformers import Trainer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import MocoCallback
from atr_moco_plugin.optim.param_groups import parameter_groups

TOO_FAR = "has made 2 steps, but this run of 2 begins at 0: .*momentum factor"


def steps_of(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def moco_trainer(out: Path, **options: Any) -> Trainer:
    model = {"momentum_schedule": options.pop("schedule", "constant")}
    options = {"criterion": "moco_atc", "model_options": model, "max_steps": 2, **options}
    return make_trainer(out, **options)


def again(trainer: Trainer, out: Path) -> Trainer:
    """A new Trainer, optimizer and callback around the same model, as after unfreezing it."""
    groups = parameter_groups(trainer.model.criterion, 0.05)
    second = Trainer(
        trainer.model, type(trainer.args)(**{**trainer.args.to_dict(), "output_dir": str(out)}),
        trainer.data_collator, trainer.train_dataset, trainer.eval_dataset,
        optimizers=(AdamW(groups, lr=1e-2), None),
    )  # fmt: skip
    second.add_callback(MocoCallback(second, rank_every=2))
    return second


def test_a_second_optimizer_takes_over_and_the_records_are_kept(tmp_path: Path) -> None:
    first = moco_trainer(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*earlier training|.*has made")
        first.train()
    records = (tmp_path / "rank.jsonl").read_text()
    for number in (1, 2):
        second = again(first, tmp_path)
        with pytest.warns(UserWarning, match=f"they are in rank.jsonl.{number} from now on"):
            second.train()
        assert steps_of(tmp_path / "rank.jsonl") == [2]
    assert (tmp_path / "rank.jsonl.1").read_text() == records
    assert int(first.model.criterion.num_steps) == 6


def test_a_schedule_that_the_first_training_has_ended_is_warned_of(tmp_path: Path) -> None:
    trainer = moco_trainer(tmp_path, schedule="cosine", save_strategy="steps", save_steps=1)
    trainer.train()
    resumed = moco_trainer(tmp_path / "2", schedule="cosine")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has made")
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    with pytest.warns(UserWarning, match=TOO_FAR):
        trainer.train()


@pytest.mark.parametrize("way", ["several", "predict"])
def test_clips_left_out_are_measured_by_the_data_set_that_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    trainer = make_trainer(tmp_path)
    large, small = Broken(trainer.eval_dataset, {1}), trainer.train_dataset
    monkeypatch.setattr(Broken, "__len__", lambda self: 20_000)
    callback = trainer.callback_handler.callbacks[-1]
    if way == "several":
        trainer.eval_dataset = {"a": small, "b": large}
        trainer.get_eval_dataloader("b")
    else:
        trainer.eval_dataset = small
        trainer.get_test_dataloader(large)
    state = trainer.args, trainer.state, trainer.control
    trainer.model.skipped_in_evaluation = set(range(20))  # one in a thousand
    callback.on_evaluate(*state)
    trainer.model.skipped_in_evaluation = set(range(21))
    with pytest.raises(InputError, match="More than 20 clips .* an evaluation"):
        callback.on_evaluate(*state)
    trainer.get_eval_dataloader("a" if way == "several" else None)
    trainer.model.skipped_in_evaluation = set(range(20))
    with pytest.raises(InputError, match="More than 10 clips .* an evaluation"):
        callback.on_evaluate(*state)
