"""A ClapModel with frozen encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainer_world import HEAD, make_batch, make_clap

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers import ClapTrainerModel


def model_of(**freeze: Any) -> ClapTrainerModel:
    torch.manual_seed(0)
    return ClapTrainerModel(make_clap(), head=HEAD, atm_start=0, queue_size=8, freeze=freeze)


def test_frozen_encoders_run_once_and_change_no_loss() -> None:
    frozen = model_of(audio="all", text="all").train()
    plain = model_of().train()
    plain.load_state_dict(frozen.state_dict())
    for name in ("audio", "text"):
        getattr(plain.criterion.model, name).encoder.eval().requires_grad_(False)
    calls = {"audio": 0, "text": 0}

    def counted(name: str) -> Any:
        def count(*_: Any) -> None:
            calls[name] += 1

        return count

    for name in calls:
        for tower in (getattr(frozen.criterion.model, name),
                      getattr(frozen.criterion, f"{name}_m").module):  # fmt: skip
            tower.encoder.register_forward_hook(counted(name))
    torch.manual_seed(1)
    found = frozen(**make_batch())
    torch.manual_seed(1)
    expected = plain(**make_batch())
    assert calls == {"audio": 1, "text": 1}
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_what_trains_and_what_is_shared(tmp_path) -> None:
    model = model_of(audio=1, text=1)
    for name in ("audio", "text"):
        tower = getattr(model.criterion.model, name)
        assert not any(p.requires_grad for p in tower.layers[0].parameters())
        assert all(p.requires_grad for x in tower.layers[1:] for p in x.parameters())
        assert all(p.requires_grad for p in tower.projection.parameters())
        copy = getattr(model.criterion, f"{name}_m")
        assert copy.shared_names(tower)
    norm = model.criterion.model.audio.encoder.audio_encoder.batch_norm
    assert not model.train().criterion.model.audio.encoder.audio_encoder.batch_norm.training
    assert not norm.weight.requires_grad  # it comes before the layers
    # As Trainer saves and resumes.
    state = {name: x.contiguous() for name, x in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    again = model_of(audio=1, text=1)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_bad_values() -> None:
    with pytest.raises(InputError, match=r"`freeze` has 'sound', expected audio and text"):
        model_of(sound="all")
    with pytest.raises(InputError, match=r"`freeze.text` is 9, .* layers"):
        model_of(text=9)
