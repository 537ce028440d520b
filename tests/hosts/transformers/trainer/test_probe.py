"""The probe of a training on ``Trainer``."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_world import Broken, make_trainer
from transformers import Trainer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapCollator, MocoCallback
from atr_moco_plugin.hosts.transformers.trainer.probe import key_probe


def probed(trainer: Trainer, probe_every: int | None) -> Trainer:
    """The trainer with another callback."""
    trainer.remove_callback(MocoCallback)
    trainer.add_callback(MocoCallback(trainer, rank_every=2, probe_every=probe_every))
    return trainer


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rank.jsonl").read_text().splitlines()]


def test_a_run_with_a_probe_is_the_run_without(tmp_path: Path) -> None:
    runs = {}
    for name, every in (("with", 1), ("without", 0)):
        trainer = probed(make_trainer(tmp_path / name, max_length_s=2), every)
        trainer.train()
        losses = [x["loss"] for x in trainer.state.log_history if "loss" in x]
        runs[name] = losses, trainer.model.state_dict(), trainer.state.log_history
    assert runs["with"][0] == runs["without"][0]
    for name, value in runs["with"][1].items():
        assert torch.equal(value, runs["without"][1][name]), name
    drifts = [record["drift"]["sources"]["text"] for record in records(tmp_path / "with")]
    assert [list(x["same"]) for x in drifts] == [["1", "2"], ["1", "2", "4"]]
    assert all(0 < value <= 1 for x in drifts for value in x["same"].values())
    assert "drift" not in records(tmp_path / "without")[0]
    assert any("rank/audio_same_4x" in entry for entry in runs["with"][2])


def test_the_pairs_are_one_caption_of_each_of_the_first_clips(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    collator = trainer.data_collator
    probe = key_probe(trainer, trainer.model, None)
    assert probe is not None and probe()["audio"].shape == (6, 12)  # all clips there are
    windows = ClapCollator(collator.tokenizer, collator.feature_extractor, eval_windows=2)
    trainer.data_collator = windows
    again = key_probe(trainer, trainer.model, None)
    assert again is not None and again.fingerprint == probe.fingerprint


@pytest.mark.parametrize("broken", [{0, 1, 2, 3}, {0}])
def test_broken_clips_at_the_head_are_passed_over(tmp_path: Path, broken: set[int]) -> None:
    trainer = make_trainer(tmp_path)
    data: Any = trainer.train_dataset
    trainer.train_dataset = Broken(data, broken)
    probe = key_probe(trainer, trainer.model, 1)
    usable = len(data) - 5 * len(broken)  # five pairs a clip
    assert probe is not None and probe()["audio"].shape == (min(usable, 16), 12)


def test_a_set_without_a_clip_to_probe_goes_without(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train_dataset = Broken(trainer.train_dataset, set(range(6)))  # type: ignore[arg-type]
    assert key_probe(trainer, trainer.model, None) is None


def test_reading_a_probe_touches_no_random_state(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    dataset: Any = trainer.train_dataset

    class Drawing(type(dataset)):  # type: ignore[misc]
        def by_clip(self) -> Any:
            random.random(), np.random.rand(), torch.rand(1)
            return super().by_clip()

    dataset.__class__ = Drawing
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert key_probe(trainer, trainer.model, 1) is not None
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_a_probe_that_cannot_be_is_left_out_or_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert key_probe(trainer, trainer.model, 0) is None
    trainer.data_collator = lambda examples: {}
    assert key_probe(trainer, trainer.model, None) is None
    with pytest.raises(InputError, match="MocoCallback.probe_every is 5, but there are no pairs"):
        key_probe(trainer, trainer.model, 5)
