"""Low-rank adapters: where they go, what trains, and what is left of them once merged."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from conftest import TINY_AUDIO, TINY_TEXT
from hf_models import AUDIO, TEXT
from torch import Tensor, nn

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import (
    AdapterConfig,
    LoraConfig,
    add_adapters,
    build_model,
    built_config,
    merge_adapters,
    model_config,
)
from atr_moco_plugin.model.adapters import check_same_adapters, merged_state
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.optim.param_groups import parameter_groups

pytest.importorskip("peft", reason="needs the extra peft")

SMALL = {"lora": {"rank": 2, "alpha": 6.0}}


def model_of(audio: Any = None, text: Any = None, freeze: Any = "none", **options: Any) -> Any:
    """Encoders of two layers, with dropout in all places."""
    torch.manual_seed(0)
    noisy = {"dropout": 0.3, "attention_dropout": 0.3, "dropout_input": 0.3}
    values = {
        "embed_dim": 12,
        "audio": {
            "name": "beats", "config": TINY_AUDIO | noisy, "adapter": audio, "freeze": freeze
        },
        "text": {"name": "bert", "config": TINY_TEXT, "adapter": text, "freeze": freeze},
        **options,
    }  # fmt: skip
    return build_model(model_config(values))


def adapted(module: nn.Module) -> list[str]:
    return [name for name, x in module.named_modules() if hasattr(x, "lora_A")]


def train(model: Any, tiny_batch: Any, steps: int = 2) -> Any:
    """The criterion after a few steps with a large learning rate."""
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=8, momentum=0.5)).train()
    optimizer = torch.optim.AdamW(parameter_groups(criterion, 0.01, lr=0.05))
    criterion.attach(optimizer)
    for seed in range(steps):
        criterion(**tiny_batch(seed=seed))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return criterion


def embeddings(model: Any, batch: Any) -> Tensor:
    with torch.no_grad():
        a, _ = model.eval().audio(**batch["audio"])
        u, _ = model.text(**batch["text"])
    return torch.cat([a, u])


def test_the_projections_of_the_attention_are_adapted() -> None:
    model = model_of(SMALL, SMALL)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    expected = [f"encoder.layers.{i}.self_attn.{x}" for i in range(2) for x in names]
    assert sorted(adapted(model.audio.encoder)) == sorted(expected)
    names = ("query", "key", "value", "output")
    expected = [f"layers.{i}.attention.{x}" for i in range(2) for x in names]
    assert sorted(adapted(model.text.encoder)) == sorted(expected)
    assert not adapted(model.head)
    for tower in (model.audio, model.text):
        trained = {n for n, p in tower.encoder.named_parameters() if p.requires_grad}
        assert trained and all(".lora_" in x for x in trained)
        assert all(p.requires_grad for p in tower.projection.parameters())


def test_nothing_changes_at_first(tiny_batch) -> None:
    batch, plain, model = tiny_batch(), model_of(), model_of(SMALL, SMALL)
    model.load_state_dict(plain.state_dict())  # a plain state
    assert torch.equal(embeddings(model, batch), embeddings(plain, batch))


def test_training_moves_the_adapters_and_nothing_else_of_the_encoders(tiny_batch) -> None:
    model = model_of(SMALL, SMALL)
    before = {name: p.clone() for name, p in model.named_parameters()}
    criterion = train(model, tiny_batch)
    for name, p in model.named_parameters():
        own = ".encoder." in name and ".lora_" not in name
        assert torch.equal(p, before[name]) == own, name
    rows = sum(len(group["params"]) for group in parameter_groups(criterion, 0.01, lr=0.1))
    assert rows == sum(p.requires_grad for p in criterion.parameters())


def test_merged_layers_are_plain_and_embed_alike(tiny_batch) -> None:
    batch, model = tiny_batch(), model_of(SMALL, SMALL)
    start = embeddings(model, batch)
    train(model, tiny_batch)
    expected = embeddings(model, batch)
    assert (expected - start).abs().max() > 0.1
    state = merged_state(model.state_dict())
    merge_adapters(model)
    assert not adapted(model)
    assert model.config == model_of().config
    assert model.state_dict().keys() == model_of().state_dict().keys() == state.keys()
    assert all(torch.equal(state[name], x) for name, x in model.state_dict().items())
    torch.testing.assert_close(embeddings(model, batch), expected, atol=1e-5, rtol=0)
    again = model_of()
    again.load_state_dict(state)
    assert torch.equal(embeddings(again, batch), embeddings(model, batch))
    model.freeze()
    merge_adapters(model)  # nothing is left to merge
    assert merged_state(state).keys() == state.keys()


def test_a_criterion_whose_copies_share_weights_is_not_merged(tiny_batch) -> None:
    """Both adapters of a weight would be added to it."""
    model = model_of(SMALL, SMALL)
    criterion = train(model, tiny_batch)
    expected = embeddings(model, tiny_batch())
    with pytest.raises(InputError, match="MocoAtcAtm has two adapters on one weight.*criterion.mo"):
        merge_adapters(criterion)
    assert torch.equal(embeddings(model, tiny_batch()), expected)
    merge_adapters(criterion.model)
    torch.testing.assert_close(embeddings(model, tiny_batch()), expected, atol=1e-5, rtol=0)


def test_merged_layers_train_again_but_for_frozen_ones() -> None:
    model, plain = model_of(SMALL, SMALL, freeze=1), model_of(freeze=1)
    twin = copy.deepcopy(model)
    for merged in (model, twin):
        merge_adapters(merged)
        trained = {n for n, p in merged.named_parameters() if p.requires_grad}
        assert trained == {n for n, p in plain.named_parameters() if p.requires_grad}
        merged.freeze()
        assert trained == {n for n, p in merged.named_parameters() if p.requires_grad}


def test_the_formula_of_an_adapted_layer() -> None:
    encoder = model_of(audio=SMALL).audio.encoder
    layer = encoder.layers[1].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (2, 24) and b.shape == (24, 2)
    assert not b.any() and encoder.adapter_scale == 3.0
    with torch.no_grad():
        b.normal_()
    x = torch.randn(5, 24)
    base = layer.base_layer
    expected = x @ base.weight.T + base.bias + 3.0 * (x @ a.T @ b.T)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_frozen_layers_get_no_adapters_and_still_run_once(tiny_batch) -> None:
    model = model_of(SMALL, SMALL, freeze=1).train()
    assert all(".layers.1." in f".{x}" for x in adapted(model.audio.encoder))
    assert all(".layers.1." in f".{x}" for x in adapted(model.text.encoder))
    assert set(model.audio.prepare(**tiny_batch()["audio"])) == {"lower"}
    assert not any(x.training for x in model.audio.encoder.layers[0].modules())
    trained = {name for name, p in model.audio.encoder.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in x for x in trained)


def test_what_has_no_adapter_stays_in_eval_mode_and_dropout_beside_it_is_on() -> None:
    model = model_of(SMALL, SMALL).eval().train()
    encoder = model.audio.encoder
    layer = encoder.layers[0]
    assert layer.training and layer.self_attn.training and layer.self_attn.q_proj.training
    assert not layer.fc1.training and not encoder.patch_embedding.training
    assert not layer.self_attn.q_proj.base_layer.training
    assert not model.text.encoder.embeddings.dropout.training
    clip = torch.randn(1, 8000)
    assert not torch.equal(model.audio(clip)[0], model.audio(clip)[0])


def test_statistics_of_a_batch_norm_stand_still() -> None:
    class Encoder(nn.Module):
        width, sample_rate = 4, 16_000

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(self.norm(x))

    from atr_moco_plugin.model.freezing import FreezableTower

    class Tower(FreezableTower):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()

    tower = Tower()
    add_adapters(tower, AdapterConfig(lora=LoraConfig(targets=["first"])))
    tower.train().encoder(torch.randn(8, 4))
    assert not tower.encoder.norm.running_mean.any()
    with pytest.raises(InputError, match="`adapter`: the encoder has adapters already"):
        add_adapters(tower, AdapterConfig())


def test_targets_may_be_any_linear_layers() -> None:
    wanted = {"lora": {"targets": ["fc1", "layers.1.fc2", "post_extract_proj"]}}
    found = adapted(model_of(audio=wanted).audio.encoder)
    layers = ["encoder.layers.0.fc1", "encoder.layers.1.fc1", "encoder.layers.1.fc2"]
    assert sorted(found) == [*layers, "post_extract_proj"]


@pytest.mark.parametrize(
    ("adapter", "freeze", "message"),
    [
        (["qproj"], "none", r"has 'qproj', which no linear .* BeatsEncoder is called; there are q"),
        (["x"], "none", r"called; there are fc1, fc2, grep_linear and \d more"),
        (["layer_norm"], "none", "has 'layer_norm', which in .* is a LayerNorm, expected linear"),
        (["layers.7.fc1"], "none", "has 'layers.7.fc1', which no linear layer"),
        (None, 2, "has no layer to adapt: all of .*q_proj.* are frozen, since `freeze` is 2"),
        (["layers.0.fc1"], 1, "has no layer to adapt: all of encoder.layers.0.fc1 are frozen"),
        ([], "none", "`targets` is empty"),
    ],
)
def test_layers_that_are_not_there(adapter: Any, freeze: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_of(audio={"lora": {"targets": adapter}}, freeze=freeze)


def test_an_encoder_without_attention_needs_targets() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)

    tower = model_of().text
    tower.encoder = Encoder()
    with pytest.raises(InputError, match="`adapter.lora.targets` is missing: .* such as one"):
        add_adapters(tower, AdapterConfig())


def test_a_layer_that_is_not_called_is_refused() -> None:
    architecture = {
        "model_type": "wavlm", "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16,
        "num_attention_heads": 2, "conv_dim": [8, 8], "conv_kernel": [10, 5], "conv_stride": [5, 4],
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    audio = {"name": "hf_audio", "config": {"architecture": architecture}, "adapter": SMALL}
    values = {"audio": audio, "text": {"name": "bert", "config": TINY_TEXT}}
    with pytest.raises(InputError, match="audio.adapter.lora` adapts .*_proj.*without calling"):
        build_model(model_config(values))
    audio["adapter"] = {"lora": {"targets": ["intermediate_dense"]}}
    assert len(adapted(build_model(model_config(values)).audio)) == 2


@pytest.mark.parametrize(
    ("part", "kind"), [("text", x) for x in TEXT if x != "gpt2"] + [("audio", x) for x in AUDIO]
)
def test_the_attention_of_transformers_encoders(part: str, kind: str) -> None:
    architecture = {"text": TEXT, "audio": AUDIO}[part][kind]
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "audio": {"name": "beats", "config": TINY_AUDIO}, "text_pooling": "mean",
        "text": {"name": "bert", "config": TINY_TEXT}, "head": {"name": "fusion"}, "embed_dim": 4,
    }  # fmt: skip
    values[part] = {"name": f"hf_{part}", "config": {"architecture": architecture}}
    values[part]["adapter"] = SMALL
    if kind == "wavlm":
        with pytest.raises(InputError, match="uses without calling the layer"):
            build_model(model_config(values))
        return
    model = build_model(model_config(values))
    encoder = getattr(model, part).encoder
    counts = [len(adapted(layer)) for layer in encoder.layers]
    assert counts == [4] * len(encoder.layers), adapted(encoder)
    inputs = {
        "audio": {"waveforms": 0.1 * torch.randn(2, 16_000)},
        "text": {"input_ids": torch.tensor([[3, 4, 5]]), "mask": torch.ones(1, 3).bool()},
    }[part]
    tower = getattr(model, part).eval()
    tower(**inputs)[0].sum().backward()
    for name, p in encoder.named_parameters():
        assert (p.grad is not None) == (".lora_" in name), name
        with torch.no_grad():
            p.add_(0.1 * torch.randn_like(p)) if ".lora_B" in name else None
    expected = tower(**inputs)[0]
    merge_adapters(model)
    torch.testing.assert_close(tower(**inputs)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("targets", [None, ["c_attn"]])
def test_an_encoder_without_linear_layers(targets: Any) -> None:
    adapter = {"lora": {"targets": targets}}
    values = {
        "audio": {"name": "beats", "config": TINY_AUDIO}, "text_pooling": "mean",
        "text": {"name": "hf_text", "config": {"architecture": TEXT["gpt2"]}, "adapter": adapter},
        "head": {"name": "fusion"},
    }  # fmt: skip
    with pytest.raises(InputError, match="text.adapter.lora` has no layer to adapt: the encoder"):
        build_model(model_config(values))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"`model.audio.adapter` needs .*atr-moco-plugin\[peft\]"):
        model_of(SMALL)


def test_momentum_copies_average_the_adapters(tiny_batch) -> None:
    model = model_of(SMALL, SMALL)
    criterion = train(model, tiny_batch, steps=1)
    online = dict(model.audio.named_parameters())
    name = "encoder.encoder.layers.1.self_attn.v_proj.lora_B.default.weight"
    average = criterion.audio_m.module.get_parameter(name)
    torch.testing.assert_close(average, 0.5 * online[name])  # it began at 0


class FullCopy(MomentumCopy):
    """A copy of every weight."""

    def __init__(self, online: Any) -> None:
        super().__init__(online)
        self.module = copy.deepcopy(self.module)


def test_a_momentum_copy_holds_adapters_and_projection_alone(tiny_batch) -> None:
    """And the losses are those of two full copies, to the last bit."""
    shared = MocoAtcAtm(
        model_of(SMALL, SMALL), MocoAtcAtmConfig(atm_start=0, queue_size=8, momentum=0.5)
    )
    full = copy.deepcopy(shared)
    full.audio_m, full.text_m = FullCopy(full.model.audio), FullCopy(full.model.text)
    online = {id(p) for p in shared.model.parameters()}
    new = {n for n, p in shared.audio_m.module.named_parameters() if id(p) not in online}
    trained = {n for n, p in shared.model.audio.named_parameters() if p.requires_grad}
    assert new == trained
    losses = []
    for criterion in (shared.train(), full.train()):
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(parameter_groups(criterion, 0.01, lr=0.05))
        criterion.attach(optimizer)
        for seed in range(4):
            loss = criterion(**tiny_batch(seed=seed))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[:4] == losses[4:] and len(set(losses)) == 4


def test_the_state_of_a_plain_criterion_starts_one_with_adapters(tiny_batch) -> None:
    """The averages of that state do not become the weights that stand still."""
    plain = train(model_of(), tiny_batch).state_dict()
    criterion = MocoAtcAtm(model_of(SMALL, SMALL), MocoAtcAtmConfig(atm_start=0, queue_size=8))
    criterion.load_state_dict(plain)
    for name, tensor in merged_state(criterion.model.state_dict()).items():
        torch.testing.assert_close(tensor, plain[f"model.{name}"], atol=0, rtol=0, msg=name)
    averaged = merged_state(criterion.audio_m.module.state_dict())
    name = "projection.weight"
    assert torch.equal(averaged[name], plain[f"audio_m.module.{name}"])


def test_other_sizes_and_other_adapters_are_refused() -> None:
    model, state = model_of(SMALL), model_of(SMALL).state_dict()
    check_same_adapters(model, state, "")
    for other, message in (
        ({"lora": {"rank": 4, "alpha": 12.0}}, "`rank` is 4 here and 2 there"),
        ({"lora": {"rank": 2, "alpha": 2.0}}, "`alpha / rank` is 1 here and 3 there"),
    ):
        with pytest.raises(InputError, match=message):
            model_of(other).load_state_dict(state)
    with pytest.raises(InputError, match="the checkpoint has and the model has not those of audio"):
        check_same_adapters(model_of(), state, "")
    with pytest.raises(InputError, match="the model has and the checkpoint has not those of audio"):
        check_same_adapters(model, model_of().state_dict(), "")


def test_a_copy_of_a_model_with_adapters_is_independent(tiny_batch) -> None:
    batch, model = tiny_batch(), model_of(SMALL, SMALL)
    twin = copy.deepcopy(model)
    expected = embeddings(model, batch)
    train(model, tiny_batch)
    assert torch.equal(embeddings(twin, batch), expected)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(embeddings(twin, batch), embeddings(model, batch))


def test_layer_decay_reaches_the_adapters() -> None:
    model = model_of(SMALL, SMALL)
    criterion = MocoAtcAtm(model, MocoAtcAtmConfig(atm_start=0, queue_size=8))
    groups = parameter_groups(criterion, 0.01, lr=1.0, audio_lr=0.5, layer_decay=0.1)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    layers = model.audio.encoder.layers
    found = [rates[id(x.self_attn.q_proj.lora_A["default"].weight)] for x in layers]
    assert found == pytest.approx([0.005, 0.05])
    assert all(id(p) not in rates for p in model.parameters() if not p.requires_grad)


def test_the_configuration_of_a_run_keeps_its_adapters() -> None:
    model = model_of(SMALL)
    built = built_config(model.config, model)
    assert built.audio.adapter == model.config.audio.adapter
    assert built.without_adapters().audio.adapter is None
    assert build_model(built).state_dict().keys() == model.state_dict().keys()


def test_a_model_on_the_meta_device_gets_adapters_too() -> None:
    """It cannot be called, so that nobody looks whether the adapters are used."""
    with torch.device("meta"):
        model = model_of(SMALL, SMALL)
    assert adapted(model) and all(p.is_meta for p in model.parameters())
