"""A training goes on with the model and the steps that it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trainer_world
from trainer_world import make_trainer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig

OPTIONS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    make_trainer(out, max_steps=2, **OPTIONS).train()
    return out / "checkpoint-2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps was 1 and is 2"),
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size was 4 and is 2"),
        ({"max_grad_norm": 0.5}, "max_grad_norm was 1.0 and is 0.5"),
        ({"bf16": True}, "bf16 was False and is True"),
    ],
)
def test_steps_of_another_kind_are_refused(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    said: str,
) -> None:
    # TrainingArguments sets it, and those made later in this process would be of bfloat16.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(InputError, match=f"go on with other options: {said}"):
        make_trainer(tmp_path, **options).train(resume_from_checkpoint=str(checkpoint))


def test_another_model_of_the_same_weights_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = FusionHeadConfig(layers=1, heads=4, dropout=0.5)
    monkeypatch.setattr(trainer_world, "HEAD", head)
    said = "model.head.heads was 2 and is 4; model.head.dropout was .* and is 0.5"
    with pytest.raises(InputError, match=said):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_where_the_weights_came_from_is_no_other_model(checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.save_pretrained(tmp_path / "clap")  # notes its class and the type of its weights
    trainer.model.clap.config.text_config.name_or_path = "elsewhere"
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 4


def test_a_checkpoint_without_the_record_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / "trainer_state.json"
    text = file.read_text()
    state = json.loads(text)
    kept = state["stateful_callbacks"]["atr_moco_plugin"]
    state["stateful_callbacks"]["atr_moco_plugin"] = {"alpha": kept["alpha"]}
    try:
        file.write_text(json.dumps(state))
        trainer = make_trainer(tmp_path, gradient_accumulation_steps=2)
        trainer.train(resume_from_checkpoint=str(checkpoint))
    finally:
        file.write_text(text)
    assert trainer.state.global_step == 4
