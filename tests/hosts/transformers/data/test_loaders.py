"""Loaders of ``Trainer``: crops in training alone, evaluation by clips and without chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trainer_world import (
    make_trainer,
)
from transformers import Trainer

from atr_moco_plugin.hosts.transformers import (
    compute_metrics,
)


def rows_encoded(trainer: Trainer) -> list[int]:
    """Filled with how many clips the audio encoder takes in each pass."""
    rows: list[int] = []
    tower = trainer.model.criterion.model.audio
    tower.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_features"])), with_kwargs=True
    )
    return rows


@pytest.mark.parametrize("options", [{}, {"dataloader_num_workers": 2}])
def test_an_evaluation_repeats_to_the_last_bit(tmp_path: Path, options: dict[str, int]) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1, per_device_eval_batch_size=3, **options)
    rows = rows_encoded(trainer)
    first = trainer.predict(trainer.eval_dataset)
    assert rows == [3, 1]  # four clips of five captions each, each once
    second = trainer.predict(trainer.eval_dataset)
    for one, other in zip(first.predictions, second.predictions, strict=True):
        assert np.array_equal(one, other)
    assert first.metrics["test_clips"] == 4 and first.metrics["test_captions"] == 20
    assert trainer.evaluate()["eval_r_sum"] == first.metrics["test_r_sum"]
    # Larger batches round otherwise, and nothing else.
    trainer.args.per_device_eval_batch_size = 4
    whole = trainer.predict(trainer.eval_dataset)
    for one, other in zip(first.predictions, whole.predictions, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_trainer_without_the_callback_evaluates_the_same(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1, per_device_eval_batch_size=10)
    expected = trainer.evaluate()
    plain = Trainer(
        trainer.model, trainer.args, trainer.data_collator, eval_dataset=trainer.eval_dataset,
        compute_metrics=compute_metrics,
    )  # fmt: skip
    rows = rows_encoded(plain)
    found = plain.evaluate()
    assert rows == [2, 2]  # 20 pairs in batches of ten, of two clips each
    assert found["eval_a2t_map10"] == expected["eval_a2t_map10"]
    assert found["eval_r_sum"] == expected["eval_r_sum"] and found["eval_clips"] == 4


def test_training_crops_at_random_with_the_same_collator(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["random_crop"].all() and batch["caption_id"].shape == (4,)
    assert "random_crop" not in next(iter(trainer.get_eval_dataloader()))
    test = trainer.get_test_dataloader(test_dataset=trainer.train_dataset)
    assert "random_crop" not in next(iter(test)) and len(test.dataset) == 6  # clips
    assert trainer.data_collator([trainer.train_dataset[0]]).keys() == {
        "input_features", "is_longer", "input_ids", "attention_mask", "clip_id", "caption_id",
    }  # fmt: skip
    with pytest.raises(ValueError, match="cropped at random.*for_evaluation"):
        trainer.model.eval()(**batch)
    pairs = next(iter(trainer.get_eval_dataloader()))
    with pytest.raises(ValueError, match="all captions.*for_training.*MocoCallback"):
        trainer.model.train()(**pairs)


def features_seen(trainer: Trainer) -> list[Tensor]:
    """Filled with the features that the model trains on."""
    seen: list[Tensor] = []

    def look(model: Any, _: Any, batch: dict[str, Tensor]) -> None:
        if model.training:
            seen.append(batch["input_features"].clone())

    trainer.model.register_forward_pre_hook(look, with_kwargs=True)
    return seen


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_crops_go_on_where_a_run_stopped(tmp_path: Path, workers: int) -> None:
    options = {
        "save_strategy": "steps", "save_steps": 3, "max_steps": 5, "max_length_s": 1,
        "per_device_train_batch_size": 15, "dataloader_num_workers": workers,
    }  # fmt: skip
    whole = make_trainer(tmp_path / "whole", **options)
    seen = features_seen(whole)
    whole.train()  # two steps an epoch, so that the checkpoint is within the second
    resumed = make_trainer(tmp_path / "resumed", **options)
    again = features_seen(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert len(seen) == 5 and len(again) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen[3:], again, strict=True))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"eval_do_concat_batches": False},
        {"dataloader_drop_last": True},
        {"eval_accumulation_steps": 1},
        {"eval_do_concat_batches": False, "eval_accumulation_steps": 1},
    ],
)
def test_options_of_the_evaluation_change_no_figure(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    expected = make_trainer(tmp_path, per_device_eval_batch_size=3).evaluate()
    found = make_trainer(tmp_path, per_device_eval_batch_size=3, **options).evaluate()
    for name in ("eval_r_sum", "eval_a2t_map10", "eval_clips", "eval_captions"):
        assert found[name] == expected[name], name


def test_several_evaluation_sets(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_length_s=1)
    single = trainer.evaluate()["eval_r_sum"]
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.train_dataset}
    metrics = trainer.evaluate()
    assert metrics["eval_one_r_sum"] == single
    assert metrics["eval_one_clips"] == 4 and metrics["eval_two_clips"] == 6
