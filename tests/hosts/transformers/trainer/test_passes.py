"""Passes over a stream: each draws its own crops, also where a training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset
from trainer_world import make_trainer
from transformers import Trainer


class Stream(IterableDataset[dict[str, Any]]):
    """The first examples of a data set, without a length."""

    def __init__(self, data: Dataset[dict[str, Any]], examples: int) -> None:
        self._data, self._examples = data, examples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._data[index] for index in range(self._examples))


def streaming(out: Path, examples: int, **options: Any) -> tuple[Trainer, list[float]]:
    """A trainer of batches of four, whose clips are cropped; what it was shown is put in the
    list."""
    trainer = make_trainer(out, criterion="moco_atc", max_length_s=1, **options)
    trainer.train_dataset = Stream(trainer.train_dataset, examples)
    seen: list[float] = []

    def look(model: Any, _: Any, batch: dict[str, Any], __: Any) -> None:
        if model.training:
            seen.append(float(batch["input_features"].double().sum()))

    trainer.model.register_forward_hook(look, with_kwargs=True)
    return trainer, seen


def test_each_pass_over_a_stream_draws_its_own_crops(tmp_path: Path) -> None:
    options = {"max_steps": 9, "save_strategy": "steps", "save_steps": 3}
    trainer, seen = streaming(tmp_path / "whole", 8, **options)
    trainer.train()
    assert len(seen) == len(set(seen)) == 9  # passes of two batches

    # Trainer goes on with the pass after the one in which the checkpoint was saved.
    trainer, more = streaming(tmp_path / "more", 8, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert more[:5] == seen[4:] and more[5] not in seen
    trainer, last = streaming(tmp_path / "last", 8, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "more" / "checkpoint-6"))
    assert last[:2] == more[4:] and last[2] not in seen


def test_a_stream_goes_on_within_its_first_pass(tmp_path: Path) -> None:
    whole, seen = streaming(tmp_path / "whole", 16, save_strategy="steps", save_steps=2)
    whole.train()
    resumed, more = streaming(tmp_path / "resumed", 16)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert more == seen[2:]
