"""Trainer's options that two towers cannot do are refused at once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from trainer_world import (
    HEAD,
    make_batch,
    make_clap,
    make_trainer,
)
from transformers import (
    Trainer,
    TrainingArguments,
)

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    ClapTrainerModel,
    MocoCallback,
    TowerPair,
    TrainerModel,
    compute_metrics,
)


def test_what_cannot_work_is_said_at_once(tmp_path: Path) -> None:
    clap = make_clap()
    with pytest.raises(ValueError, match="queue_sise.*Did you mean `queue_size`"):
        ClapTrainerModel(clap, queue_sise=10)
    with pytest.raises(ValueError, match="moco_atc_atm"):
        ClapTrainerModel(clap, "moco")
    with pytest.raises(TypeError, match="wrap it"):
        MocoCallback(Trainer(clap, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])))
    model = ClapTrainerModel(clap, head=HEAD, atm_start=0, queue_size=10)
    plain = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="label_names.*TRAINING_ARGUMENTS"):
        MocoCallback(Trainer(model, plain, compute_metrics=compute_metrics))
    fusing = make_clap(enable_fusion=True, fusion_type="aff_2d")
    batch = make_batch()
    del batch["is_longer"]
    with pytest.raises(ValueError, match="is_longer"):
        ClapTrainerModel(fusing, head=HEAD, atm_start=0, queue_size=10)(**batch)
    pair = TowerPair(nn.Linear(2, 2), nn.Linear(2, 2), nn.Identity(), 2)
    with pytest.raises(ValueError, match="Both towers take input"):
        TrainerModel(pair, "atc")
    trainer = make_trainer(tmp_path, max_steps=1, queue_size=31)
    with pytest.warns(UserWarning, match="31 rows, but an epoch has 30 pairs"):
        trainer.train()


def skip_unless_there(*options: str) -> None:
    """Skip a test of options that this version of transformers has not."""
    if missing := set(options) - {field.name for field in fields(TrainingArguments)}:
        pytest.skip(f"TrainingArguments have no {', '.join(missing)} in this version")


def test_a_training_set_that_makes_no_batch_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=64, dataloader_drop_last=True)
    with pytest.raises(InputError, match="makes no batch of 64 .* dataloader_drop_last"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor.*leave it out.*alpha"),
        ({"past_index": 0}, "past_index"),
        ({"prediction_loss_only": True}, "prediction_loss_only=True.*compute_metrics"),
        ({"bf16_full_eval": True}, "bf16_full_eval=True.*`bf16`"),
        ({"include_for_metrics": ["inputs"]}, "include_for_metrics has 'inputs'"),
        ({"jit_mode_eval": True}, "jit_mode_eval"),
        ({"metric_for_best_model": "a2t_medr"}, "'a2t_medr', .* lower is better: .*=False"),
        ({"metric_for_best_model": "eval_t2a_medr_dup"}, "lower is better: .*=False"),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "lower is better"),
        (
            {"metric_for_best_model": "r_sum", "greater_is_better": False},
            "higher is better: .*=T",
        ),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_options_without_a_meaning_are_refused_when_a_trainer_is_made(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    skip_unless_there(*options)
    with pytest.raises(InputError, match=words) as caught:
        make_trainer(tmp_path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("criterion", "options", "refused"),
    [
        ("moco_atc_atm", {"atm_start": "auto"}, True),
        ("moco_atc_atm", {"atm_every": 2}, True),
        ("moco_atc_atm", {"atm_start": 0}, False),
        ("moco_atc", {}, False),
    ],
)
def test_a_head_that_waits_under_ddp_is_refused_where_unused_parameters_are_not_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    criterion: str,
    options: dict[str, Any],
    refused: bool,
) -> None:
    """DDP failed in the second step, with an error of its own."""
    trainer = make_trainer(
        tmp_path, criterion=criterion, model_options=options, ddp_find_unused_parameters=False
    )
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: 2))
    if refused:
        with pytest.raises(InputError, match="ddp_find_unused_parameters is False.*`atm_start`"):
            MocoCallback(trainer)
    else:
        MocoCallback(trainer)


@pytest.mark.parametrize(
    ("metric", "greater"), [("a2t_medr", False), ("loss", None), ("r_sum", None), ("mine", False)]
)
def test_the_best_model_is_chosen_by_a_metric_in_its_own_direction(
    tmp_path: Path, metric: str, greater: bool | None
) -> None:
    make_trainer(tmp_path, metric_for_best_model=metric, greater_is_better=greater)


def test_a_loss_of_ones_own_is_refused(tmp_path: Path) -> None:
    """Trainer no longer divided the loss by the accumulation steps."""
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2)
    trainer.compute_loss_func = lambda output, labels, num_items_in_batch: output["loss"]
    with pytest.raises(InputError, match="compute_loss_func .*: leave it out"):
        MocoCallback(trainer)


def test_options_that_are_set_later_are_refused_when_training_starts(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.args.prediction_loss_only = True
    with pytest.raises(InputError, match="prediction_loss_only"):
        trainer.train()


def test_without_the_callback_neftune_is_refused_too(tmp_path: Path) -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=4)
    arguments = TrainingArguments(
        str(tmp_path), neftune_noise_alpha=5.0, use_cpu=True, report_to=[]
    )
    with pytest.raises(InputError, match="neftune_noise_alpha"):
        Trainer(model, arguments, train_dataset=[make_batch()]).train()


def test_a_model_made_after_the_callback_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model = trainer.model_wrapped = ClapTrainerModel(
        make_clap(), head=HEAD, atm_start=0, queue_size=4
    )
    with pytest.raises(InputError, match="another model than when MocoCallback was made"):
        trainer.train()

    def make() -> ClapTrainerModel:
        return ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=4)

    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(InputError, match="model_init makes a new model"):
        MocoCallback(Trainer(None, arguments, model_init=make))
