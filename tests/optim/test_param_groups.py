from __future__ import annotations

import warnings

import pytest
import torch
from linear import LinearModel
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MLtm,
    MLtmConfig,
    MocoAtcAtm,
    MocoAtcAtmConfig,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.optim.param_groups import parameter_groups


@pytest.fixture(params=["blip", "albef"])
def criterion(request, tiny_model) -> MocoAtcAtm:
    return MocoAtcAtm(tiny_model(fusion=request.param), MocoAtcAtmConfig(atm_start=0, queue_size=4))


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
    found = rates(
        criterion, lr=1.0, audio_lr=0.5, text_lr=0.25, temperature_lr=2.0, head_lr_scale=4.0
    )
    expected = {"temperature": 2.0}
    for name in found:
        if name.startswith("model.audio.encoder."):
            expected[name] = 0.5
        elif name.startswith(("model.text.encoder.", "model.head.layers.")):
            expected[name] = 0.25
        elif name.startswith("model.head."):
            expected[name] = 4.0
    assert found == {name: expected.get(name, 1.0) for name in found}
    assert set(found.values()) == {1.0, 0.5, 0.25, 4.0, 2.0}


def test_a_rate_of_an_encoder_that_is_not_trained_is_warned_of(tiny_model) -> None:
    model = tiny_model()
    model.audio.encoder.requires_grad_(False)
    criterion = Atc(model, AtcConfig())
    with pytest.warns(UserWarning, match="`audio_lr` is 0.5, but nothing of the audio encoder"):
        parameter_groups(criterion, 0.1, lr=1.0, audio_lr=0.5, text_lr=0.25)


@pytest.mark.parametrize("head", ["none", "frozen"])
def test_a_rate_of_a_matching_head_that_is_not_trained_is_warned_of(tiny_model, head: str) -> None:
    model = tiny_model()
    if head == "none":
        model.head = None
    else:
        model.head.requires_grad_(False)
    with pytest.warns(UserWarning, match="`head_lr_scale` is 4.0, but no matching head is trained"):
        parameter_groups(Atc(model, AtcConfig()), 0.1, lr=1.0, head_lr_scale=4.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_gives_no_rate_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="`head_lr_scale` is .*, expected above 0 and finite"):
        parameter_groups(Atc(LinearModel(), AtcConfig()), 0.1, lr=1.0, head_lr_scale=scale)


@pytest.mark.parametrize("kind", ["buffer", "frozen"])
def test_a_rate_of_a_temperature_that_is_not_learned_is_warned_of(kind: str) -> None:
    if kind == "buffer":
        criterion: nn.Module = MLtm(LinearModel(), MLtmConfig())
    else:
        criterion = Atc(LinearModel(), AtcConfig())
        criterion.temperature.requires_grad_(False)
    with pytest.warns(UserWarning, match="`temperature_lr` is 0.5, but this .* learns no temp"):
        parameter_groups(criterion, 0.1, lr=1.0, temperature_lr=0.5)


def test_a_rate_that_is_the_recipes_own_is_not_warned_of(tiny_model) -> None:
    model = tiny_model()
    model.text.encoder.requires_grad_(False)
    options = {"lr": 1.0, "temperature_lr": 0.5, "text_lr": 0.5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = parameter_groups(
            MLtm(model, MLtmConfig()), 0.1, **options, preset=["temperature_lr", "text_lr"]
        )
    assert {group["lr"] for group in groups} == {1.0}
    with pytest.warns(UserWarning, match="`temperature_lr` is 0.5"):
        parameter_groups(MLtm(model, MLtmConfig()), 0.1, **options, preset=["text_lr"])


def test_layer_decay_for_frozen_encoders_is_warned_of(tiny_model) -> None:
    model = tiny_model()
    criterion = Atc(model, AtcConfig())
    model.audio.encoder.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5, temperature_lr=0.5)
    model.text.encoder.requires_grad_(False)
    with pytest.warns(UserWarning, match="`layer_decay` is 0.5, but nothing of either encoder is"):
        parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)


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


def test_layers_that_a_head_has_taken_move_slower_above_a_frozen_encoder(tiny_model) -> None:
    model = tiny_model(fusion="albef")
    model.text.encoder.requires_grad_(False)
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=4))
    found = rates(criterion, lr=1.0, text_lr=0.8, layer_decay=0.5)
    assert found["model.head.layers.0.ffn_in.weight"] == 0.4
    assert not any(name.startswith("model.text.encoder.") for name in found)


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


def plain_names(criterion: nn.Module) -> set[str]:
    """Names of the parameters without weight decay."""
    names = {id(p): name for name, p in criterion.named_parameters()}
    groups = parameter_groups(criterion, 0.1)
    return {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}


@pytest.mark.parametrize("pooling", ["cls", "attention"])
def test_what_the_documentation_says_is_not_decayed(tiny_model, pooling: str) -> None:
    criterion = MocoAtcAtm(
        tiny_model(audio_pooling=pooling), MocoAtcAtmConfig(atm_start=0, queue_size=4)
    )
    plain = plain_names(criterion)
    audio, text = "model.audio.encoder.", "model.text.encoder."
    expected = {
        "temperature",
        audio + "encoder.pos_conv.0.parametrizations.weight.original0",
        audio + "encoder.relative_attention_bias.weight",
        audio + "encoder.layers.1.self_attn.grep_a",
        audio + "layer_norm.weight",
        text + "embeddings.token_type.weight",
        text + "layers.0.ffn_in.bias",
        *(["model.audio.pooling.token"] if pooling == "cls" else []),
    }
    assert expected <= plain
    weights = {name for name, p in criterion.named_parameters() if p.requires_grad} - plain
    assert audio + "encoder.pos_conv.0.parametrizations.weight.original1" in weights
    assert text + "embeddings.word.weight" in weights
    assert not any(x in name for name in weights for x in ("norm", "bias", "grep_a", "token_type"))


class Published(nn.Module):
    """An encoder of another package, with blocks in the place of layers."""

    def __init__(self, publishes: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.map_norm = nn.LayerNorm([3, 6])
        self.conv = weight_norm(nn.Conv1d(6, 6, 3), dim=0)
        self.shift = nn.Module()
        self.shift.bias = nn.Parameter(torch.zeros(1, 6, 1))
        if publishes:
            self.layers = self.blocks

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "dist_token"}  # the latter is of another configuration, as in timm


def with_encoders(publishes: bool) -> Atc:
    model = LinearModel()
    model.audio.encoder, model.text.encoder = Published(publishes), Published(publishes)
    return Atc(model, AtcConfig())


def test_an_encoder_of_another_package_names_its_own() -> None:
    plain = {x for x in plain_names(with_encoders(True)) if x.startswith("model.audio.encoder.")}
    own = {name.removeprefix("model.audio.encoder.") for name in plain}
    assert own == {
        "stem.bias", "blocks.0.bias", "blocks.1.bias", "cls_token", "map_norm.weight",
        "map_norm.bias", "conv.bias", "conv.parametrizations.weight.original0", "shift.bias",
    }  # fmt: skip


def test_layers_of_any_name_are_published_in_order() -> None:
    found = rates(with_encoders(True), lr=1.0, layer_decay=0.5)
    for part in ("audio", "text"):
        encoder = f"model.{part}.encoder."
        assert found[encoder + "blocks.1.weight"] == 0.5
        assert found[encoder + "blocks.0.weight"] == 0.25
        assert found[encoder + "stem.weight"] == found[encoder + "cls_token"] == 0.125
    assert found["model.audio.projection.weight"] == found["model.head.weight"] == 1.0


@pytest.mark.parametrize("layers", [None, 2, [], nn.ModuleList([nn.Linear(6, 6)])])
def test_an_encoder_that_does_not_publish_its_layers_is_refused(layers: object) -> None:
    criterion = with_encoders(False)
    if layers is not None:
        criterion.model.audio.encoder.__dict__["layers"] = layers
    message = (
        "`layer_decay` is 0.5, but the audio encoder, Published, does not say which its layers"
    )
    with pytest.raises(ValueError, match=message):
        parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)
    assert set(rates(criterion, lr=1.0).values()) == {1.0}
    # A frozen encoder has no rate to cut.
    criterion.model.audio.requires_grad_(False)
    with pytest.raises(ValueError, match="the text encoder, Published"):
        parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)
    criterion.model.text.requires_grad_(False)
    with pytest.warns(UserWarning, match="nothing of either encoder"):
        assert set(rates(criterion, lr=1.0, layer_decay=0.5).values()) == {1.0}


def test_the_temperature_has_its_rate_in_a_compiled_criterion() -> None:
    criterion = Atc(LinearModel(), AtcConfig())
    compiled = torch.compile(criterion, backend="eager")
    groups = parameter_groups(compiled, 0.1, lr=1.0, temperature_lr=0.5)
    found = [group["lr"] for group in groups for p in group["params"] if p is criterion.temperature]
    assert found == [0.5]


@pytest.mark.parametrize(
    "option", ["audio_lr", "text_lr", "temperature_lr", "layer_decay", "head_lr_scale"]
)
def test_a_wrapper_of_the_criterion_has_no_rates_of_parts(option: str) -> None:
    wrapper = nn.Sequential(Atc(LinearModel(), AtcConfig()))
    with pytest.raises(InputError) as error:
        parameter_groups(wrapper, 0.1, lr=1.0, **{option: 0.5})
    assert str(error.value) == (
        f"`{option}` is 0.5, but a Sequential has no `model` with parts: give `parameter_groups` "
        "the criterion and not its wrapper."
    )
    assert len(parameter_groups(wrapper, 0.1, lr=1.0)) == 2


@pytest.mark.parametrize("options", [{"audio_lr": 0.5}, {"layer_decay": 0.5}])
def test_options_for_an_encoder_that_is_not_there_are_refused(options: dict[str, float]) -> None:
    criterion = Atc(LinearModel(), AtcConfig())
    del criterion.model.audio.encoder
    with pytest.raises(ValueError, match="the audio tower, LinearTower, has no `encoder`"):
        parameter_groups(criterion, 0.1, lr=1.0, **options)


def test_a_heads_own_layers_have_no_rate_of_the_text_encoder() -> None:
    criterion = Atc(LinearModel(), AtcConfig())
    criterion.model.head = nn.Module()
    criterion.model.head.layers = nn.Sequential(nn.Linear(10, 2))  # as in docs/plugins.md
    assert rates(criterion, lr=1.0, text_lr=0.5)["model.head.layers.0.weight"] == 1.0
