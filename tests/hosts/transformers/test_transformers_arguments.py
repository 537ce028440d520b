"""Trainer's options: those that work with two towers, and those that are refused at once."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainer_world import HEAD, make_batch, make_clap, make_trainer
from transformers import Trainer, TrainingArguments

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import (
    ClapTrainerModel,
    MocoCallback,
    TextModelTower,
    TowerPair,
    TrainerModel,
    last_checkpoint,
)
from atr_moco_plugin.hosts.transformers.trainer.resume import last_good


def skip_unless_there(*options: str) -> None:
    """Skip a test of options that this version of transformers has not."""
    if missing := set(options) - {field.name for field in fields(TrainingArguments)}:
        pytest.skip(f"TrainingArguments have no {', '.join(missing)} in this version")


def test_gradient_checkpointing_changes_no_weight(tmp_path: Path) -> None:
    states = []
    for on in (False, True):
        trainer = make_trainer(tmp_path / str(on), gradient_checkpointing=on)
        audio, text = (getattr(trainer.model.criterion.model, x) for x in ("audio", "text"))
        passes = {"audio": 0, "text": 0}
        layers = {
            "audio": audio.encoder.audio_encoder.layers[0],
            "text": text.encoder.encoder.layer[0],
        }
        for name, layer in layers.items():

            def count(*_: Any, name: str = name) -> None:
                passes[name] += 1

            # Within the layer: transformers 5 keeps a layer's own hooks out of the checkpoint.
            linear = next(x for x in layer.modules() if isinstance(x, nn.Linear))
            linear.register_forward_pre_hook(count)
        trainer.train()
        # Four steps; once more in each backward pass.
        assert passes == dict.fromkeys(passes, 8 if on else 4)
        states.append(trainer.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_training_set_that_makes_no_batch_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, per_device_train_batch_size=64, dataloader_drop_last=True)
    with pytest.raises(InputError, match="makes no batch of 64 .* dataloader_drop_last"):
        trainer.train()


def test_a_checkpoint_of_another_criterion_is_refused(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    make_trainer(tmp_path, criterion="moco_atc", **options).train()
    with pytest.raises(InputError, match="The checkpoint lacks weights of this model"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_gradient_checkpointing_of_a_tower_without_layers_is_refused(tmp_path: Path) -> None:
    class Audio(nn.Module):
        def forward(self, input_features: torch.Tensor) -> None: ...

    text = TextModelTower(make_clap().text_model, 12)
    model = TrainerModel(TowerPair(Audio(), text, None, 12), "atc")
    arguments = TrainingArguments(
        str(tmp_path), gradient_checkpointing=True, use_cpu=True, report_to=[]
    )
    trainer = Trainer(model, arguments, train_dataset=[{}] * 4)
    with pytest.raises(InputError, match="gradient_checkpointing=True.*audio tower"):
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


def test_options_that_are_set_later_are_refused_when_training_starts(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.args.prediction_loss_only = True
    with pytest.raises(InputError, match="prediction_loss_only"):
        trainer.train()


def test_without_the_callback_neftune_is_refused_too(tmp_path: Path) -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, queue_size=4)
    arguments = TrainingArguments(
        str(tmp_path), neftune_noise_alpha=5.0, use_cpu=True, report_to=[]
    )
    with pytest.raises(InputError, match="neftune_noise_alpha"):
        Trainer(model, arguments, train_dataset=[make_batch()]).train()


def test_what_a_model_of_two_towers_has_not() -> None:
    model = ClapTrainerModel(make_clap(), head=HEAD, queue_size=4)
    assert not hasattr(model, "config") and not hasattr(model, "get_input_embeddings")
    with pytest.raises(AttributeError, match="has no attribute 'confg'"):
        _ = model.confg


def test_a_model_made_after_the_callback_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model = trainer.model_wrapped = ClapTrainerModel(make_clap(), head=HEAD, queue_size=4)
    with pytest.raises(InputError, match="another model than when MocoCallback was made"):
        trainer.train()

    def make() -> ClapTrainerModel:
        return ClapTrainerModel(make_clap(), head=HEAD, queue_size=4)

    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(InputError, match="model_init makes a new model"):
        MocoCallback(Trainer(None, arguments, model_init=make))


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
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.warns(UserWarning, match="pytorch_model.bin .*; it is passed over"):
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    weights.unlink()
    with pytest.warns(UserWarning, match="checkpoint-4 has no weights"):
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
