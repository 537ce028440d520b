"""The configuration that builds a run's model again."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from conftest import TINY_AUDIO, make_tiny_model

from atr_moco_plugin.model import build_model, built_config, model_config

pytest.importorskip("peft", reason="needs the extra peft")


@pytest.mark.parametrize("targets", [None, ["q_proj", "fc1"]])
def test_no_frozen_layer_is_adapted(targets: list[str] | None) -> None:
    """Adapters went into all layers, so that the run's own checkpoint could not be read."""
    adapter = {"lora": {"rank": 2, "targets": targets}}
    audio = {"name": "beats", "config": TINY_AUDIO, "adapter": adapter, "freeze": 1}
    model = make_tiny_model(audio=audio)
    assert model.config is not None
    built = built_config(model.config, model)
    assert built.audio.freeze == "none"
    again = build_model(model_config(json.loads(json.dumps(asdict(built)))))
    again.load_state_dict(model.state_dict())
    assert built_config(built, again) == built
    assert built.without_adapters().audio.adapter is None
    whole = make_tiny_model(audio={**audio, "freeze": "none"})
    assert len(whole.state_dict()) > len(model.state_dict())
