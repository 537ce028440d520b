from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.encoders.bert import BertConfig, BertEncoder
from atr_moco_plugin.encoders.bert.pretrained import read_state
from atr_moco_plugin.encoders.bert.sources import find_folder

SIZES = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
}


def public_state() -> dict[str, Tensor]:
    """The names and shapes of a public BERT, written out from its paper's architecture."""
    shapes = {
        "embeddings.word_embeddings.weight": (30, 8),
        "embeddings.position_embeddings.weight": (10, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "embeddings.LayerNorm.weight": (8,),
        "embeddings.LayerNorm.bias": (8,),
    }
    for layer in ("encoder.layer.0.", "encoder.layer.1."):
        for part, shape in {
            "attention.self.query": (8, 8),
            "attention.self.key": (8, 8),
            "attention.self.value": (8, 8),
            "attention.output.dense": (8, 8),
            "intermediate.dense": (12, 8),
            "output.dense": (8, 12),
        }.items():
            shapes |= {f"{layer}{part}.weight": shape, f"{layer}{part}.bias": shape[:1]}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}{part}.weight": (8,), f"{layer}{part}.bias": (8,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save(folder: Path, state: dict[str, Tensor], **config: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SIZES | config))
    save_file(state, folder / "model.safetensors")
    return str(folder)


def test_old_names_prefix_and_heads_load_alike(tmp_path: Path) -> None:
    state = public_state()
    plain = BertEncoder.from_pretrained(save(tmp_path / "plain", state))
    old = {
        f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for name, value in state.items()
    }
    old |= {
        "bert.pooler.dense.weight": torch.zeros(8, 8),
        "bert.embeddings.position_ids": torch.arange(10)[None],
        "cls.predictions.bias": torch.zeros(30),
        "cls.seq_relationship.weight": torch.zeros(2, 8),
    }
    loaded = BertEncoder.from_pretrained(save(tmp_path / "old", old)).state_dict()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, atol=0, rtol=0)
    torch.testing.assert_close(
        loaded["layers.1.ffn_out.weight"], state["encoder.layer.1.output.dense.weight"]
    )


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in public_state().items()}
    encoder = BertEncoder.from_pretrained(save(tmp_path, state))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_architecture_is_the_checkpoints_and_dropouts_are_the_users(tmp_path: Path) -> None:
    name = save(tmp_path, public_state(), hidden_dropout_prob=0.3, layer_norm_eps=1e-6)
    config = BertConfig(pretrained=name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2)
    encoder = BertEncoder.from_config(config)
    assert encoder.width == 8 and len(encoder.layers) == 2
    assert encoder.config == BertConfig(
        **SIZES,
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.2,
        pretrained=name,
    )
    assert BertEncoder.from_pretrained(name).config.hidden_dropout_prob == 0.3
    with pytest.raises(ValueError, match="`hidden_size` is 16, but .* has 8: leave it out"):
        BertEncoder.from_config(BertConfig(pretrained=name, hidden_size=16, num_attention_heads=2))


def test_without_pretrained_the_weights_are_random() -> None:
    torch.manual_seed(0)
    first = BertEncoder.from_config(BertConfig(**SIZES)).state_dict()
    second = BertEncoder.from_config(BertConfig(**SIZES)).state_dict()
    name = "layers.0.attention.query.weight"
    assert not torch.equal(first[name], second[name])


def test_digest_is_checked(tmp_path: Path) -> None:
    name = save(tmp_path, public_state())
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    BertEncoder.from_config(BertConfig(pretrained=name, sha256=digest.upper()))
    with pytest.raises(ValueError, match=f"has SHA-256 {digest}, expected {'0' * 64}"):
        BertEncoder.from_config(BertConfig(pretrained=name, sha256="0" * 64))


def test_an_installed_package_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = public_state()
    save(tmp_path / "tiny_bert_files" / "model", state)
    # Were the package imported, this would raise.
    (tmp_path / "tiny_bert_files" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "tiny_bert_files" / "config.json").write_text("{}")
    info = tmp_path / "tiny_bert_files-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-bert-files\nVersion: 1.0\n")
    record = ["__init__.py", "config.json", "model/config.json", "model/model.safetensors"]
    (info / "RECORD").write_text("".join(f"tiny_bert_files/{file},,\n" for file in record))
    monkeypatch.syspath_prepend(tmp_path)

    encoder = BertEncoder.from_config(BertConfig(pretrained="tiny-bert-files"))
    torch.testing.assert_close(
        encoder.embeddings.word.weight.detach(), state["embeddings.word_embeddings.weight"]
    )
    with pytest.raises(ValueError, match="carries 2 model folders: give the path of one"):
        find_folder("tiny-bert-files", ["config.json"])


@pytest.mark.parametrize("name", ["no-such-org/no-such-bert", "torch", "two words/and/slashes"])
def test_an_unknown_name_says_where_it_was_looked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"'{name}' are neither a local folder, nor .* Hub"):
        BertEncoder.from_pretrained(name)


def test_paths_are_never_asked_of_the_hub(tmp_path: Path) -> None:
    for path in ("./nowhere", "../nowhere", "~/nowhere-at-all", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            BertEncoder.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match="holds none of model.safetensors, pytorch_model"):
        BertEncoder.from_pretrained(str(tmp_path))
    save(tmp_path, public_state())
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds model.safetensors but no config.json"):
        BertEncoder.from_pretrained(str(tmp_path))


def test_missing_and_unexpected_names_are_named(tmp_path: Path) -> None:
    state = public_state()
    state["encoder.layer.0.crossattention.self.key.weight"] = torch.zeros(8, 8)
    state["classifier.weight"] = torch.zeros(2, 8)
    del state["encoder.layer.1.output.LayerNorm.bias"]
    with pytest.raises(ValueError) as error:
        BertEncoder.from_pretrained(save(tmp_path, state))
    message = str(error.value)
    assert "missing layers.1.ffn_norm.bias, unexpected classifier.weight, encoder.lay" in message
    deeper = save(tmp_path, public_state(), num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"missing layers.2.attention.key.bias.* and 11 more"):
        BertEncoder.from_pretrained(deeper)


def test_a_different_shape_is_named(tmp_path: Path) -> None:
    wide = save(tmp_path, public_state(), vocab_size=31)
    with pytest.raises(
        ValueError, match=r"word.weight of shape \[30, 8\] where .* \[31, 8\]; give"
    ):
        BertEncoder.from_pretrained(wide)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("not json", "is not a JSON file"),
        ("[]", "must hold a JSON object"),
        ("{}", "lacks vocab_size, hidden_size"),
        (json.dumps(SIZES | {"model_type": "roberta"}), "model_type 'roberta' where only 'bert'"),
        (json.dumps(SIZES | {"hidden_act": "gelu_new"}), "hidden_act 'gelu_new'"),
        (json.dumps(SIZES | {"position_embedding_type": "relative_key"}), "only 'absolute'"),
        (json.dumps(SIZES | {"num_attention_heads": 3}), "does not describe a BERT model: .* mult"),
        (json.dumps(SIZES | {"vocab_size": "many"}), "does not describe a BERT model"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, config: str, message: str) -> None:
    name = save(tmp_path, public_state())
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        BertEncoder.from_pretrained(name)


class _Unsafe:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run while loading",)


def test_damaged_and_unsafe_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors, pickled = tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"
    save(tmp_path, public_state())
    safetensors.write_bytes(safetensors.read_bytes()[:-10])
    torch.save({"weight": _Unsafe()}, pickled)
    for path in (safetensors, pickled):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as BERT weights"):
            read_state(path)
    for content in (b"", b"text", b"\x80\x02"):
        pickled.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as BERT weights"):
            read_state(pickled)
    torch.save([torch.zeros(2)], pickled)
    with pytest.raises(ValueError, match="must hold a state dict"):
        read_state(pickled)
    assert capsys.readouterr().out == ""
