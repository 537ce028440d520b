"""OpenBEATs checkpoints against the package of their authors, and what is said of a bad one."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from beats_files import official_state
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.errors import InputError, MissingFileError

published = pytest.importorskip(
    "openbeats.beats_encoder", reason="needs the package openbeats (extra test)"
)
TINY: dict[str, Any] = {
    "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4, "embed_dim": 16, "conv_pos": 16, "conv_pos_groups": 4,
    "deep_norm": True, "relative_position_embedding": True, "gru_rel_pos": True,
    "num_buckets": 20, "max_distance": 30, "encoder_layerdrop": 0.05, "attention_dropout": 0.0,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
    },
}  # fmt: skip
WAVEFORMS = torch.randn(3, 24_000, generator=torch.Generator().manual_seed(1)) * 0.1
LENGTHS = torch.tensor([24_000, 13_579, 2_800])


def encoder_of_the_package(seed: int = 0, mean: float = 15.41663, **changes: Any) -> Any:
    """ESPnet's encoder with random weights, those of the biases too."""
    torch.manual_seed(seed)
    encoder = published.BeatsEncoder(0, beats_config=TINY | changes, fbank_mean=mean)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad and parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "relative_attention_bias" in name or "grep" in name:
                parameter.add_(torch.randn_like(parameter))
    return encoder.eval()


def fine_tuned(encoder: Any) -> dict[str, Tensor]:
    """The state of a classifier of ESPnet."""
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return {**state, "decoder.linear_out.weight": torch.ones(5, 32)}


def save_folder(folder: Path, encoder: Any, **options: Any) -> Path:
    """A model as ESPnet packs it: deep in a repository, with its configuration beside it."""
    place = folder / "work" / "exp" / "beats_iter1"
    place.mkdir(parents=True)
    torch.save(fine_tuned(encoder), place / "valid.acc.best.pth")
    options = {"beats_config": TINY, **options}
    text = yaml.safe_dump({"encoder": "beats", "encoder_conf": options, "token_list": ["a", "b"]})
    (place / "config.yaml").write_text(text)
    return folder


def assert_same(loaded: BeatsEncoder, encoder: Any) -> None:
    with torch.no_grad():
        expected, counts, _ = encoder(WAVEFORMS, LENGTHS)
        states, mask = loaded.eval()(WAVEFORMS, LENGTHS)
    assert mask.sum(1).tolist() == counts.tolist()
    valid = mask[..., None]
    torch.testing.assert_close(
        states * valid, expected[:, : mask.size(1)] * valid, atol=1e-4, rtol=0
    )
    assert expected[mask].std() > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_flash_attn": True},
        {"deep_norm": False, "gru_rel_pos": False},
        {"relative_position_embedding": False, "gru_rel_pos": False},
        {"activation_fn": "relu", "conv_bias": True, "embed_dim": 32},
    ],
)
def test_states_are_those_of_the_package(changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = encoder_of_the_package(**changes)
    cfg = {"input_patch_size": 16, **TINY, **changes}
    torch.save({"cfg": cfg, "model": encoder.state_dict()}, tmp_path / "epoch_latest.pt")
    assert_same(BeatsEncoder.from_checkpoint(tmp_path / "epoch_latest.pt"), encoder)


def test_a_folder_of_espnet(tmp_path: Path) -> None:
    encoder = encoder_of_the_package()
    folder = save_folder(tmp_path / "model", encoder)
    weights = next(folder.rglob("*.pth"))
    weights.with_name("latest.pth").symlink_to(weights.name)
    assert_same(BeatsEncoder.from_checkpoint(folder), encoder)
    assert_same(BeatsEncoder.from_checkpoint(weights), encoder)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = BeatsConfig(checkpoint=str(folder), sha256=digest, dropout=0.3)
    assert BeatsEncoder.from_config(config).config.dropout == 0.3
    with pytest.raises(InputError, match="has SHA-256"):
        BeatsEncoder.from_checkpoint(folder, sha256="0" * 64)


def test_safetensors_and_a_training_state(tmp_path: Path) -> None:
    encoder = encoder_of_the_package()
    folder = save_folder(tmp_path / "model", encoder)
    weights = next(folder.rglob("*.pth"))
    state = {name: tensor.contiguous().clone() for name, tensor in fine_tuned(encoder).items()}
    save_file(state, weights.with_name("beats.safetensors"))
    assert_same(BeatsEncoder.from_checkpoint(weights.with_name("beats.safetensors")), encoder)
    torch.save({"model": state, "optimizers": [{}]}, weights.with_name("checkpoint.pth"))
    assert_same(BeatsEncoder.from_checkpoint(weights.with_name("checkpoint.pth")), encoder)
    with pytest.raises(InputError, match=r"has 3 checkpoints \(.*beats.safetensors.*give the path"):
        BeatsEncoder.from_checkpoint(folder)


def test_features_are_normalised_as_the_model_was_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = encoder_of_the_package(mean=11.7)
    folder = save_folder(tmp_path / "one", encoder, fbank_mean=11.7)
    with caplog.at_level(logging.INFO):
        loaded = BeatsEncoder.from_checkpoint(folder)
    assert_same(loaded, encoder)
    assert "normalised by {'fbank_mean': 11.7}" in caplog.text
    # Also after it was built again from its own configuration, as a bundle is.
    again = BeatsEncoder(loaded.config)
    again.load_state_dict(loaded.state_dict())
    assert_same(again, encoder)
    file = next(folder.rglob("*.pth"))
    cfg = {"input_patch_size": 16, **TINY, "fbank_mean": 12.0}
    torch.save({"cfg": cfg, "model": encoder.state_dict()}, file)
    with pytest.raises(InputError, match=r"`fbank_mean` is 12.0 .* 11.7 in config.yaml; make"):
        BeatsEncoder.from_checkpoint(folder)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_real_sizes_have_the_weights_of_the_package(size: str) -> None:
    encoder = published.BeatsEncoder(0, beats_config={**TINY, **BASE, **SIZES[size]})
    expected = {name: tuple(x.shape) for name, x in encoder.state_dict().items()}
    with torch.device("meta"):
        ours = BeatsEncoder(BeatsConfig(**SIZES[size]))
    found = {name: tuple(x.shape) for name, x in official_state(ours).items()}
    masking = {"patch_embedding_pad.weight", "raw2fbank_pad.weight"}
    assert found == {name: shape for name, shape in expected.items() if name not in masking}


BASE = {
    "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12, "embed_dim": 512, "conv_pos": 128, "conv_pos_groups": 16,
    "num_buckets": 320,
}  # fmt: skip


def hub_repository(cache: Path, name: str) -> Path:
    """An empty snapshot of a repository in a cache of the hub."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    return snapshot


def test_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = encoder_of_the_package()
    save_folder(hub_repository(tmp_path, "someone/OpenBEATs-Base"), encoder)
    assert_same(BeatsEncoder.from_checkpoint("hf://someone/OpenBEATs-Base"), encoder)
    file = "work/exp/beats_iter1/valid.acc.best.pth"
    assert_same(BeatsEncoder.from_checkpoint(f"hf://someone/OpenBEATs-Base/{file}"), encoder)
    with pytest.raises(MissingFileError, match="someone/other is not to be had from the Hugging"):
        BeatsEncoder.from_checkpoint("hf://someone/other")


@pytest.mark.parametrize("known_by", ["name", "origin"])
def test_a_fine_tuned_model_has_the_sizes_of_the_one_before(
    known_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = encoder_of_the_package()
    named = known_by == "name"
    folder = tmp_path / ("OpenBEATs-Base-i2-as20k" if named else "mine")
    origin = "/old/beats.pt" if named else "/old/exp/ear_base_beats_iter1/epoch_latest.pt"
    save_folder(folder, encoder, beats_ckpt_path=origin, beats_config={"dropout": 0.2})
    with pytest.raises(
        MissingFileError, match="OpenBEATs-Base-i2.* not to be had .*beats_ckpt_path"
    ):
        BeatsEncoder.from_checkpoint(folder)
    before = hub_repository(tmp_path / "hub", "shikhar7ssu/OpenBEATs-Base-i2")
    (before / "config.yaml").write_text(yaml.safe_dump({"encoder_conf": {"beats_config": TINY}}))
    loaded = BeatsEncoder.from_checkpoint(folder)
    assert_same(loaded, encoder)
    assert loaded.config.dropout == 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beats_config": None}, "has no `encoder_conf.beats_config`"),
        ({"beats_config": [1]}, "`encoder_conf.beats_config` must be a mapping"),
        ({"beats_config": TINY | {"layer_norm_first": True}}, "layer_norm_first must be False"),
        ({"beats_config": TINY | {"activation_fn": "glu"}}, "`cfg.activation_fn` is 'glu'"),
        ({"beats_config": TINY | {"encoder_layers": 3}}, "its cfg: missing encoder.layers.2"),
        ({"beats_config": TINY, "max_layer": 1}, "`encoder_conf.max_layer` is 1, expected none"),
        ({"beats_ckpt_path": "/old/beats.pt"}, "/old/beats.pt.* names no OpenBEATs model"),
        ({"fbank_std": -1.0}, "`fbank_std` is -1.0, expected above 0"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_used(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = save_folder(tmp_path / "model", encoder_of_the_package(), **options)
    with pytest.raises(InputError, match=message):
        BeatsEncoder.from_checkpoint(folder)


@pytest.mark.parametrize(
    "text", ["a: [", "a: !!python/object:x.Y {}", "- 1", "encoder_conf: 3", ""]
)
def test_a_configuration_that_is_no_espnet_configuration(text: str, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model", encoder_of_the_package())
    next(folder.rglob("config.yaml")).write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        BeatsEncoder.from_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("downsample_conv.weight", "downsampling_rate"),
        ("conformer_adapter.layers.0.weight", "adapter_config"),
        ("cross_embed_positions.weight", "add_positional_information"),
        ("layer_weights", "use_weighted_representation"),
    ],
)
def test_parts_behind_the_network_are_refused(name: str, option: str, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model", encoder_of_the_package())
    file = next(folder.rglob("*.pth"))
    torch.save({**torch.load(file), f"encoder.{name}": torch.ones(2, 1)}, file)
    with pytest.raises(InputError, match=f"OpenBEATs model with `{option}`"):
        BeatsEncoder.from_checkpoint(folder)


def test_folders_without_a_checkpoint_or_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 0 checkpoints \(none\), expected one file of .pth"):
        BeatsEncoder.from_checkpoint(tmp_path)
    folder = save_folder(tmp_path / "model", encoder_of_the_package())
    config = next(folder.rglob("config.yaml"))
    for place in ("one", "two"):
        (folder / place).mkdir()
        (folder / place / "config.yaml").write_text(config.read_text())
    config.unlink()
    with pytest.raises(InputError, match=r"has 2 files config.yaml \(one/config.yaml, two/config"):
        BeatsEncoder.from_checkpoint(folder)
    (folder / "two" / "config.yaml").unlink()
    BeatsEncoder.from_checkpoint(folder)
    file = next(folder.rglob("*.pth"))
    with pytest.raises(MissingFileError, match="without its architecture, and there is no config"):
        BeatsEncoder.from_checkpoint(file)


def test_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model", encoder_of_the_package())
    file = next(folder.rglob("*.pth"))
    torch.save({**torch.load(file), "encoder.quantize.embedding.weight": torch.ones(4, 2)}, file)
    with pytest.raises(InputError, match="is a BEATs tokenizer, not an encoder"):
        BeatsEncoder.from_checkpoint(folder)
