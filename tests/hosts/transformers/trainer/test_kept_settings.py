"""A training goes on with the model and the steps that it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trainer_world
from conftest import make_tiny_model
from trainer_world import make_trainer
from transformers import Trainer, TrainerState, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.fusion import FusionHeadConfig
from atr_moco_plugin.hosts.transformers import TRAINING_ARGUMENTS, MocoCallback, TrainerModel
from atr_moco_plugin.hosts.transformers.trainer.options import keep_options

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


def plain_trainer(out: Path, **options: Any) -> Trainer:
    """One whose optimizer is of its ``TrainingArguments``."""
    made = make_trainer(out, criterion="moco_atc", **options)
    trainer = Trainer(made.model, made.args, made.data_collator, made.train_dataset)
    trainer.add_callback(MocoCallback(trainer))
    return trainer


@pytest.fixture(scope="module")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    plain_trainer(out, max_steps=2, **OPTIONS).train()
    return out / "checkpoint-2"


def test_another_optimizer_or_seed_is_refused(plain_checkpoint: Path, tmp_path: Path) -> None:
    """The state of the optimizer brought the old rate back without a word."""
    options = {
        "learning_rate": 0.25, "weight_decay": 0.5, "adam_beta1": 0.5, "adam_beta2": 0.75,
        "adam_epsilon": 0.125, "optim": "adafactor", "seed": 7, "data_seed": 8,
    }  # fmt: skip
    trainer = plain_trainer(tmp_path, **options)
    before = plain_trainer(tmp_path).args
    with pytest.raises(InputError, match="go on with other options") as refused:
        trainer.train(resume_from_checkpoint=str(plain_checkpoint))
    for name, value in options.items():
        was = str(getattr(getattr(before, name), "value", getattr(before, name)))
        was = was.removesuffix("_fused")  # the default of some versions of torch
        assert f"TrainingArguments.{name} was {was} and is {value}" in str(refused.value)


def test_what_takes_effect_or_is_the_same_may_change(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    options = {"lr_scheduler_type": "constant", "logging_steps": 1, "optim": "adamw_torch_fused"}
    trainer = plain_trainer(tmp_path, max_steps=4, **{**OPTIONS, **options})
    trainer.train(resume_from_checkpoint=str(plain_checkpoint))
    assert trainer.state.log_history[-2]["learning_rate"] == trainer.args.learning_rate


def test_a_longer_run_goes_on_with_its_optimizer(plain_checkpoint: Path, tmp_path: Path) -> None:
    trainer = plain_trainer(tmp_path, max_steps=3, **OPTIONS)
    trainer.train(resume_from_checkpoint=str(plain_checkpoint))
    trainer.args.max_steps = 4  # of the same Trainer, which has an optimizer by now
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert trainer.state.global_step == 4
    trainer.args.learning_rate = 0.25
    with pytest.raises(InputError, match="learning_rate was 5e-05 and is 0.25"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_options_of_an_optimizer_that_the_user_gave_are_not_compared(
    checkpoint: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, learning_rate=0.25, optim="sgd")
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 4


def test_another_model_of_the_same_weights_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = FusionHeadConfig(layers=1, heads=4, dropout=0.5)
    monkeypatch.setattr(trainer_world, "HEAD", head)
    said = "model.head.heads was 2 and is 4; model.head.dropout was .* and is 0.5"
    with pytest.raises(InputError, match=said):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize(
    ("part", "options", "more", "said"),
    [
        (
            "spec_augment",
            {"time_masks": 1},
            {"freq_masks": 1},
            r"model.spec_augment was None and is \{'time_masks': 1,",
        ),
        (
            "patch_dropout",
            {"time": 0.5},
            {"bands": 1},
            r"patch_dropout was None and is \{'time': 0.5,",
        ),
    ],
)
def test_an_optional_part_that_is_switched_on_or_off_is_refused(
    tmp_path: Path, part: str, options: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    """It was not seen, as nothing is saved of it."""
    off, on, other = (
        Trainer(
            TrainerModel(make_tiny_model(**{part: value}), "moco_atc", queue_size=8),
            TrainingArguments(str(tmp_path), **TRAINING_ARGUMENTS, use_cpu=True, report_to=[]),
        )
        for value in (None, options, {**options, **more})
    )

    def go_on(first: Trainer, then: Trainer, *forgotten: str) -> None:
        state = TrainerState()
        keep_options(first, state, ())
        kept: Any = json.loads(json.dumps(state.stateful_callbacks))
        for name in forgotten:
            del kept["atr_moco_plugin"][name]
        keep_options(then, TrainerState(stateful_callbacks=kept), ())

    with pytest.raises(InputError, match=said):
        go_on(off, on)
    with pytest.raises(InputError, match=rf"{part} was \{{.*\}} and is None"):
        go_on(on, off)
    with pytest.raises(InputError, match=f"{part}.* was .* and is"):
        go_on(on, other)
    go_on(on, on)
    if part == "patch_dropout":
        go_on(off, on, part)  # an earlier release did not keep it


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
        trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, seed=7)
        trainer.train(resume_from_checkpoint=str(checkpoint))
    finally:
        file.write_text(text)
    assert trainer.state.global_step == 4
