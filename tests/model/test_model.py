from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from atr_moco_plugin.model import (
    AudioTower,
    PartConfig,
    RetrievalModel,
    RetrievalModelConfig,
    build_model,
    model_config,
)
from atr_moco_plugin.tokens import AudioTokens, TextTokens

KINDS = [
    ("blip", "mean", "cls"),
    ("blip", "attention", "mean"),
    ("albef", "cls", "cls"),
    ("albef", "mean", "mean"),
]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
SAMPLES = 9_000
TOKENS = 10


def mapping(fusion: str = "blip", audio_pooling: str = "mean", text_pooling: str = "cls") -> Any:
    """A tiny model as a YAML file would say it; dropout stays at the published 0.1."""
    return {
        "embed_dim": 12,
        "audio_pooling": audio_pooling,
        "text_pooling": text_pooling,
        "audio": {
            "name": "beats",
            "config": {
                "embed_dim": 16,
                "encoder_layers": 2,
                "encoder_embed_dim": 24,
                "encoder_ffn_embed_dim": 32,
                "encoder_attention_heads": 2,
                "conv_pos": 8,
                "conv_pos_groups": 2,
                "num_buckets": 32,
                "max_distance": 64,
            },
        },
        "text": {
            "name": "bert",
            "config": {
                "vocab_size": 50,
                "hidden_size": 20,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "max_position_embeddings": 16,
            },
        },
        "head": {"name": "atm", "config": {"fusion": fusion}},
    }


@functools.cache
def model_of(fusion: str = "blip", audio_pooling: str = "mean", text_pooling: str = "cls") -> Any:
    """In eval mode, with weights large enough for every term to show."""
    torch.manual_seed(0)
    model = build_model(model_config(mapping(fusion, audio_pooling, text_pooling)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def clips(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
    ends = torch.tensor(lengths)
    return waveforms * (torch.arange(max(lengths)) < ends[:, None]), ends


def captions(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(5, 50, mask.shape, generator=generator) * mask, mask


def spoil(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """``value`` wherever the mask is ``False``."""
    wide = mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))
    return torch.where(wide, x, torch.full_like(x, value))


@torch.no_grad()
def run(
    model: RetrievalModel, audio: tuple[Tensor, Tensor], text: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of both towers and the match logits of row i with row i."""
    a, audio_tokens = model.audio(*audio)
    u, text_tokens = model.text(*text)
    return a, u, model.match(text_tokens, audio_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_unit_float32_and_logits_two_a_pair(kind) -> None:
    model = model_of(*kind)
    a, u, logits = run(model, clips([9_000, 4_000, 6_000]), captions([3, 8, 5]))
    assert model.embed_dim == 12
    assert logits.shape == (3, 2)
    for embeddings in (a, u):
        assert embeddings.shape == (3, 12) and embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
        assert (embeddings - embeddings[0])[1:].abs().amax(dim=1).min() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_unit_float32_under_bf16_autocast(kind) -> None:
    model = model_of(*kind)
    batch = clips([9_000, 4_000]), captions([3, 8])
    exact = run(model, *batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(model, *batch)
    for embeddings, expected in zip(found[:2], exact[:2], strict=True):
        assert embeddings.dtype == torch.float32
        # A norm taken in bf16 would be off by up to 4e-3.
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
        assert (embeddings * expected).sum(dim=1).min() > 0.99
        assert not torch.equal(embeddings, expected)


@settings(max_examples=12, deadline=None)
@given(
    audio_lengths=st.lists(st.integers(2_800, SAMPLES), min_size=2, max_size=2),
    text_lengths=st.lists(st.integers(1, TOKENS), min_size=2, max_size=2),
    kind=st.sampled_from(KINDS),
)
def test_padding_never_changes_an_embedding_or_a_score(audio_lengths, text_lengths, kind) -> None:
    model = model_of(*kind)
    # An item beside whom both are padded, and what is in the padding is noise.
    waveforms, ends = clips([*audio_lengths, SAMPLES])
    inside = torch.arange(SAMPLES) < ends[:, None]
    ids, mask = captions([*text_lengths, TOKENS])
    together = run(model, (spoil(waveforms, inside, 0.7), ends), (spoil(ids, mask, 7), mask))
    for row, (samples, tokens) in enumerate(zip(audio_lengths, text_lengths, strict=True)):
        alone = run(
            model,
            (waveforms[row : row + 1, :samples], ends[row : row + 1]),
            (ids[row : row + 1, :tokens], mask[row : row + 1, :tokens]),
        )
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[row], expected[0], **CLOSE)


@settings(max_examples=12, deadline=None)
@given(
    audio_lengths=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    text_lengths=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    extra=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    fusion=st.sampled_from(["blip", "albef"]),
)
@torch.no_grad()
def test_padded_token_states_never_change_a_score(
    audio_lengths, text_lengths, extra, fusion
) -> None:
    model = model_of(fusion)
    audio_mask = torch.arange(6 + extra[0]) < torch.tensor(audio_lengths)[:, None]
    noise = torch.Generator().manual_seed(sum(audio_lengths))
    audio = AudioTokens(torch.randn(*audio_mask.shape, 24, generator=noise), audio_mask)
    ids, text_mask = captions([*text_lengths, 6 + extra[1]])
    text = TextTokens(*(x[:3] for x in model.text.encoder(ids, text_mask)))
    states, input_ids = spoil(text.states, text.mask, 1e3), spoil(text.input_ids, text.mask, 9)
    found = model.match(
        TextTokens(states, text.mask, input_ids),
        AudioTokens(spoil(audio.states, audio.mask, -1e3), audio.mask),
    )
    for row, (frames, words) in enumerate(zip(audio_lengths, text_lengths, strict=True)):
        alone = model.match(
            TextTokens(*(x[row : row + 1, :words] for x in text)),
            AudioTokens(*(x[row : row + 1, :frames] for x in audio)),
        )
        torch.testing.assert_close(found[row], alone[0], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_depends_on_every_valid_token_and_on_the_pairing(kind) -> None:
    model = model_of(*kind)
    audio, text = clips([9_000, 8_000]), captions([5, 4])
    with torch.no_grad():
        audio_tokens, text_tokens = model.audio(*audio)[1], model.text(*text)[1]
        logits = model.match(text_tokens, audio_tokens)
        swapped = model.match(text_tokens, AudioTokens(*(x.flip(0) for x in audio_tokens)))
        assert (logits - swapped).abs().max() > 1e-3
        states = audio_tokens.states.clone()
        states[0, int(audio_tokens.mask[0].sum()) - 1] += 1.0
        moved = model.match(text_tokens, AudioTokens(states, audio_tokens.mask))
        assert (logits - moved)[0].abs().max() > 1e-4
        assert torch.equal(logits[1], moved[1])


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_a_batch_permutes_embeddings_and_scores(kind) -> None:
    model, order = model_of(*kind), torch.tensor([2, 0, 3, 1])
    audio, text = clips([9_000, 3_000, 6_000, 7_000]), captions([3, 8, 5, 1])
    found = run(model, audio, text)
    shuffled = run(model, tuple(x[order] for x in audio), tuple(x[order] for x in text))
    for expected, value in zip(found, shuffled, strict=True):
        torch.testing.assert_close(value, expected[order], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_holds_no_tensor_twice_and_survives_a_file(kind, tmp_path: Path) -> None:
    model = model_of(*kind)
    state = model.state_dict()
    pointers = [value.data_ptr() for value in state.values()]
    assert len(set(pointers)) == len(pointers)
    save_file(state, tmp_path / "model.safetensors")

    torch.manual_seed(1)
    other = build_model(model_config(mapping(*kind))).eval()
    batch = clips([9_000, 4_000]), captions([3, 8])
    expected = run(model, *batch)
    assert not torch.equal(run(other, *batch)[0], expected[0])
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    for found, value in zip(run(other, *batch), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient(kind) -> None:
    model = build_model(model_config(mapping(*kind))).train()
    a, audio_tokens = model.audio(*clips([9_000, 4_000]))
    u, text_tokens = model.text(*captions([3, 8]))
    logits = model.match(text_tokens, audio_tokens)
    ((a * u).sum() + logits.logsumexp(dim=1).sum()).backward()
    named = dict(model.named_parameters())
    assert [n for n, p in named.items() if p.requires_grad and p.grad is None] == []
    assert [n for n, p in named.items() if p.grad is not None and not p.grad.isfinite().all()] == []
    used = {n.split(".")[0] for n, p in named.items() if p.grad.abs().max() > 1e-6}
    assert used == {"audio", "text", "head"}


def test_defaults_name_the_papers_parts() -> None:
    config = model_config({})
    assert (config.audio.name, config.text.name, config.head.name) == ("beats", "bert", "atm")
    assert config == RetrievalModelConfig()


def test_parts_of_one_config_share_no_options() -> None:
    first, second = RetrievalModelConfig(), RetrievalModelConfig()
    first.audio.config["dropout"] = 0.5
    assert second.audio.config == {} == PartConfig(name="beats").config


def changed(path: str, value: object) -> dict[str, Any]:
    values = mapping()
    *folders, last = path.split(".")
    inner = values
    for folder in folders:
        inner = inner[folder]
    inner[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("audio.name", "beets", r"^`model\.audio\.name`: 'beets' is not installed.*mean beats\?"),
        ("text.name", "roberta", r"^`model\.text\.name`: 'roberta' is not installed"),
        ("head.name", "atn", r"^`model\.head\.name`: 'atn' is not installed.*mean atm\?"),
        ("audio.config.layers", 2, r"^`model\.audio\.config\.layers` is not known"),
        ("text.config.hidden", 2, r"^`model\.text\.config\.hidden` is not known.*`hidden_size`"),
        ("head.config.fusions", "blip", r"^`model\.head\.config\.fusions` is not known.*`fusion`"),
        (
            "audio.config.encoder_layers",
            0,
            r"^`model\.audio\.config` .*encoder_layers` is 0, expected 1 or more",
        ),
        ("audio.config.dropout", "much", r"^`model\.audio\.config\.dropout` is 'much'"),
        ("text.config.num_attention_heads", 3, r"^`model\.text\.config` .*num_attention_heads"),
        ("head.config.fusion", "clip", r"^`model\.head\.config\.fusion` is 'clip'.*blip, albef"),
        ("audio_pooling", "max", r"^`model\.audio_pooling` is 'max'.*mean, attention, cls"),
        ("text_pooling", "max", r"^`model\.text_pooling` is 'max'.*cls, mean"),
        ("embed_dim", 0, r"^`model` .*`embed_dim` is 0"),
        ("embed_dims", 8, r"^`model\.embed_dims` is not known.*`embed_dim`"),
        ("audio", {"config": {}}, r"^`model` .*audio\.name"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(path: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(model_config(changed(path, value)))


def test_a_config_made_in_python_is_checked_too() -> None:
    with pytest.raises(ValueError, match="`audio_pooling` is 'max', expected one of mean,"):
        RetrievalModelConfig(audio_pooling="max")
    with pytest.raises(ValueError, match="`text_pooling` is 'max', expected one of cls, mean"):
        RetrievalModelConfig(text_pooling="max")


@pytest.mark.parametrize("published", [None, 16_000.0, 0])
def test_an_audio_encoder_publishes_its_rate(published: object) -> None:
    class Deaf(torch.nn.Module):
        width = 4

    encoder = Deaf()
    if published is not None:
        encoder.sample_rate = published
    with pytest.raises(
        ValueError, match="`sample_rate` of the audio encoder .*Deaf is .* expected a"
    ):
        AudioTower(encoder, 8, "mean")
    encoder.sample_rate = 32_000
    tower = AudioTower(encoder, 8, "mean")
    assert RetrievalModel(tower, torch.nn.Module(), torch.nn.Module()).sample_rate == 32_000
    assert model_of("blip", "mean", "cls").sample_rate == 16_000


def test_what_was_frozen_can_be_frozen_again() -> None:
    values = mapping()
    values["audio"]["config"]["finetuned_model"] = True
    model = build_model(model_config(values))
    model.requires_grad_(True)
    model.freeze()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["audio.encoder.predictor.weight", "audio.encoder.predictor.bias"]


def test_a_tower_takes_waveforms_or_features(tiny_model) -> None:
    tower = tiny_model().audio
    waveforms = torch.randn(2, 4_000)
    with pytest.raises(ValueError, match="one of waveforms, features, .* but got none"):
        tower()
    with pytest.raises(ValueError, match="but got waveforms and features"):
        tower(waveforms, **tower.prepare(waveforms))
