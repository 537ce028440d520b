"""Reading and writing official BEATs checkpoints, and what is said of a bad one."""

from __future__ import annotations

import hashlib
import json
import logging
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from beats_files import LAYER_BIAS, official_state, save_official
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.encoders.beats.checkpoint import read_checkpoint

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SSL = FIXTURES / "beats_tiny_ssl.safetensors"
FINETUNED = FIXTURES / "beats_tiny_finetuned.safetensors"


def official_content(path: Path = SSL) -> dict[str, Any]:
    """A fixture as the official code would have saved it: the tied bias under every layer."""
    cfg, model = read_checkpoint(path)
    for layer in range(cfg["encoder_layers"]):
        model[LAYER_BIAS.format(layer)] = model[LAYER_BIAS.format(0)]
    return {"cfg": cfg, "model": model}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("finetuned", [False, True])
def test_base_model_has_the_official_names_and_shapes(finetuned: bool) -> None:
    with torch.device("meta"):
        encoder = BeatsEncoder(BeatsConfig(finetuned_model=finetuned))
    exported = {name: list(value.shape) for name, value in official_state(encoder).items()}
    manifest = json.loads((FIXTURES / "beats_base_manifest.json").read_text())["state_dict"]
    head = {"predictor.weight": [527, 768], "predictor.bias": [527]} if finetuned else {}
    assert exported == manifest | head
    assert len(exported) == (252 if finetuned else 250)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert parameters == (90_717_055 if finetuned else 90_311_792)


@pytest.mark.parametrize("fixture", [SSL, FINETUNED])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_save_and_load_round_trip(fixture: Path, suffix: str, tmp_path: Path) -> None:
    encoder = BeatsEncoder.from_checkpoint(fixture)
    path = tmp_path / f"beats{suffix}"
    save_official(encoder, path)
    loaded = BeatsEncoder.from_checkpoint(path)
    assert loaded.config == encoder.config
    exported, again = official_state(encoder), official_state(loaded)
    assert exported.keys() == again.keys() == official_content(fixture)["model"].keys()
    assert all(torch.equal(exported[name], again[name]) for name in exported)


def test_official_torch_file(tmp_path: Path) -> None:
    content = official_content(FINETUNED) | {"label_dict": {0: "/m/09x0r"}}
    loaded = BeatsEncoder.from_checkpoint(saved(content, tmp_path / "official.pt"))
    for name, value in content["model"].items():
        assert torch.equal(official_state(loaded)[name], value), name


def test_state_dict_has_no_tied_tensors(tmp_path: Path) -> None:
    state = BeatsEncoder.from_checkpoint(SSL).state_dict()
    save_file(state, tmp_path / "model.safetensors")  # refuses tensors that share memory
    assert sum("relative_attention_bias" in name for name in state) == 1


def test_from_config_takes_the_architecture_of_the_file_and_the_users_options() -> None:
    digest = hashlib.sha256(SSL.read_bytes()).hexdigest().upper()
    config = BeatsConfig(
        dropout=0.4, attention_dropout=0.2, padding_mask="official", checkpoint=str(SSL),
        sha256=digest,
    )  # fmt: skip
    encoder = BeatsEncoder.from_config(config)
    assert (encoder.config.encoder_layers, encoder.width) == (2, 48)
    assert (encoder.config.dropout, encoder.config.attention_dropout) == (0.4, 0.2)
    assert encoder.config.padding_mask == "official"
    assert torch.equal(
        encoder.patch_embedding.weight, read_checkpoint(SSL).model["patch_embedding.weight"]
    )
    # What it was built from needs no file, so that a training checkpoint resumes without one.
    BeatsEncoder(encoder.config).load_state_dict(encoder.state_dict())


def test_options_beside_a_checkpoint_count_or_are_refused() -> None:
    config = BeatsConfig(checkpoint=str(SSL), fbank_mean=11.7, fbank_std=5.0)
    encoder = BeatsEncoder.from_config(config)
    assert (encoder.config.fbank_mean, encoder.config.fbank_std) == (11.7, 5.0)
    with pytest.raises(ValueError, match="`encoder_layers` is 6, but .* has 2: leave it out"):
        BeatsEncoder.from_config(BeatsConfig(checkpoint=str(SSL), encoder_layers=6))


def test_from_config_without_checkpoint_initialises() -> None:
    config = BeatsEncoder.from_checkpoint(SSL).config
    assert BeatsEncoder.from_config(config).config == config


def test_constructor_refuses_to_ignore_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="from_config"):
        BeatsEncoder(BeatsConfig(checkpoint="beats.pt"))


def test_gradient_decay_of_a_finetuned_file_is_dropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = official_content()
    content["cfg"]["layer_wise_gradient_decay_ratio"] = 0.6
    with caplog.at_level(logging.INFO):
        BeatsEncoder.from_checkpoint(saved(content, tmp_path / "finetuned.pt"))
    assert "layer_wise_gradient_decay_ratio 0.6 is set to 1.0" in caplog.text


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no BEATs checkpoint at .*absent\.pt"):
        BeatsEncoder.from_checkpoint(tmp_path / "absent.pt")


def test_wrong_digest() -> None:
    with pytest.raises(ValueError, match=r"has SHA-256 [0-9a-f]{64}, expected 00"):
        BeatsEncoder.from_checkpoint(SSL, sha256="00")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"beats{suffix}"
    save_official(BeatsEncoder.from_checkpoint(SSL), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"beats{suffix} cannot be read .* truncated"):
        BeatsEncoder.from_checkpoint(path)


def test_file_with_more_than_tensors(tmp_path: Path) -> None:
    path = saved({"cfg": {}, "model": {}, "hook": print}, tmp_path / "unsafe.pt")
    with pytest.raises(ValueError, match="unsafe.pt cannot be read .*names `builtins.print`"):
        BeatsEncoder.from_checkpoint(path)


def test_a_configuration_that_is_a_namespace(tmp_path: Path) -> None:
    content = official_content(FINETUNED)
    plain = BeatsEncoder.from_checkpoint(saved(content, tmp_path / "plain.pt"))
    content["cfg"] = Namespace(**content["cfg"])
    loaded = BeatsEncoder.from_checkpoint(saved(content, tmp_path / "namespace.pt"))
    assert loaded.config == plain.config
    content["cfg"] = datetime(2024, 5, 1)
    with pytest.raises(ValueError, match="names `datetime.datetime`"):
        BeatsEncoder.from_checkpoint(saved(content, tmp_path / "date.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder.weight": torch.ones(1)}, "expected 'cfg' and 'model', found encoder.weight"),
        (torch.ones(1), "expected 'cfg' and 'model', found Tensor"),
        ({"cfg": {}, "model": torch.ones(1)}, "must be mappings"),
        ({"cfg": {}, "model": {"text.weight": torch.ones(1)}}, "no 'patch_embedding.weight'"),
        (
            {"cfg": {}, "model": {"quantize.embedding.weight": torch.ones(1)}},
            "a BEATs tokenizer, not an encoder",
        ),
    ],
)
def test_another_models_file(content: object, message: str, tmp_path: Path) -> None:
    path = saved(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt is .*{message}"):
        BeatsEncoder.from_checkpoint(path)


def test_safetensors_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"text.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="is not a BEATs checkpoint"):
        BeatsEncoder.from_checkpoint(path)


def without(model: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in model.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: without(m, "encoder.layers.1.fc1.bias"), "missing encoder.layers.1.fc1.bias,"),
        (
            lambda m: without(m, "encoder.pos_conv.0.weight_g"),
            "missing encoder.pos_conv.0.weight_g",
        ),
        (lambda m: m | {"predictor.bias": torch.ones(3)}, "unexpected predictor.bias"),
        (
            lambda m: m | {"layer_norm.weight": torch.ones(7)},
            r"layer_norm.weight of shape \[7\] where its cfg asks for \[32\]; give the weights",
        ),
        (lambda m: m | {LAYER_BIAS.format(1): torch.ones(32, 4)}, "differs from other layers"),
    ],
)
def test_parameters_that_do_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    content = official_content()
    content["model"] = change(content["model"])
    path = saved(content, tmp_path / "beats.pt")
    with pytest.raises(ValueError, match=rf"beats\.pt.* {message}"):
        BeatsEncoder.from_checkpoint(path)


def test_a_hub_name_is_read_from_the_cache(tmp_path: Path, monkeypatch) -> None:
    repository = tmp_path / "models--someone--beats"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    (repository / "snapshots" / "abc123" / "sub").mkdir(parents=True)
    saved(official_content(), repository / "snapshots" / "abc123" / "sub" / "beats.pt")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    from_hub = read_checkpoint("hf://someone/beats/sub/beats.pt")
    assert from_hub.cfg == read_checkpoint(SSL).cfg
    with pytest.raises(FileNotFoundError, match="hf://someone/beats/other.pt is not to be had"):
        read_checkpoint("hf://someone/beats/other.pt")
    with pytest.raises(ValueError, match="write hf://OWNER/REPO/FILE"):
        read_checkpoint("hf://beats.pt")
