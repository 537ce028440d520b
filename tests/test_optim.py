from __future__ import annotations

import pytest
import torch

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.optim import parameter_groups


@pytest.fixture(params=["blip", "albef"])
def criterion(request, tiny_model) -> MocoAtcAtm:
    return MocoAtcAtm(tiny_model(fusion=request.param), MocoAtcAtmConfig(queue_size=4))


def rates(criterion: MocoAtcAtm, **options: object) -> dict[str, float]:
    """Learning rate by name."""
    names = {id(p): name for name, p in criterion.named_parameters()}
    groups = parameter_groups(criterion, 0.1, **options)
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_only_weights_are_decayed_and_frozen_ones_left_out(criterion) -> None:
    criterion.model.text.projection.requires_grad_(False)
    decayed, plain = parameter_groups(criterion, weight_decay=0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert "lr" not in decayed
    assert any(p is criterion.temperature for p in plain["params"])
    assert any(p is criterion.model.audio.projection.weight for p in decayed["params"])
    assert any(p is criterion.model.audio.projection.bias for p in plain["params"])
    trained = [p for p in criterion.parameters() if p.requires_grad]
    assert len(decayed["params"]) + len(plain["params"]) == len(trained)


def test_each_part_has_its_rate(criterion) -> None:
    found = rates(criterion, lr=1.0, audio_lr=0.5, text_lr=0.25, temperature_lr=2.0)
    expected = {"temperature": 2.0}
    for name in found:
        if name.startswith("model.audio.encoder."):
            expected[name] = 0.5
        elif name.startswith(("model.text.encoder.", "model.head.layers.")):
            expected[name] = 0.25
    assert found == {name: expected.get(name, 1.0) for name in found}
    assert set(found.values()) == {1.0, 0.5, 0.25, 2.0}


def test_layers_move_slower_the_deeper_they_lie(criterion) -> None:
    found = rates(criterion, lr=1.0, layer_decay=0.5)
    audio = "model.audio.encoder."
    assert found[audio + "encoder.layers.1.fc1.weight"] == 0.5
    assert found[audio + "encoder.layers.0.fc1.weight"] == 0.25
    assert found[audio + "patch_embedding.weight"] == 0.125
    # Of the two layers of the text encoder an ALBEF head has taken the upper one.
    upper = "model.head.layers.0." if hasattr(criterion.model.head, "layers") else None
    upper = upper if f"{upper}ffn_in.weight" in found else "model.text.encoder.layers.1."
    assert found[upper + "ffn_in.weight"] == 0.5
    assert found["model.text.encoder.layers.0.ffn_in.weight"] == 0.25
    assert found["model.text.encoder.embeddings.word.weight"] == 0.125
    assert found["model.audio.projection.weight"] == found["temperature"] == 1.0


def test_an_optimizer_takes_the_groups(criterion) -> None:
    groups = parameter_groups(criterion, 0.1, lr=1e-3, text_lr=1e-5, layer_decay=0.9)
    optimizer = torch.optim.AdamW(groups)
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    assert held == sum(p.requires_grad for p in criterion.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_decay": 0.9}, "`lr` is missing"),
        ({"text_lr": 1e-5}, "`lr` is missing"),
        ({"lr": 1.0, "layer_decay": 0.0}, "`layer_decay` is 0.0"),
        ({"lr": 1.0, "layer_decay": 1.1}, "`layer_decay` is 1.1"),
    ],
)
def test_what_does_not_fit_is_refused(criterion, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(criterion, 0.1, **options)
