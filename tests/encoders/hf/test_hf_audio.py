"""``hf_audio``: a clip's states are those of transformers, alone and in any batch."""

from __future__ import annotations

import functools
import json
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hf_models import AUDIO, REFUSED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.encoders.hf import HfAudioConfig, HfAudioEncoder
from atr_moco_plugin.encoders.hf.group_norm import ClipGroupNorm, counts_for
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model import AudioTower
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig
from atr_moco_plugin.momentum import MomentumCopy
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.tokens import AudioTokens

WITH_WAVES = ("wav2vec2", "hubert", "wavlm", "wav2vec2-large")
SHORT, LONG = 2_800, 19_000  # 0.175 s, and less than every tiny model takes


def make(kind: str) -> HfAudioEncoder:
    torch.manual_seed(0)
    return HfAudioEncoder.from_config(HfAudioConfig(architecture=AUDIO[kind])).eval()


cached = functools.cache(make)


def clips(lengths: list[int], seed: int = 0, longest: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(lengths)
    size = longest or max(lengths)
    loud = 10.0 ** torch.empty(len(lengths), 1).uniform_(-3, 0, generator=generator)
    waveforms = loud * torch.randn(len(lengths), size, generator=generator).clamp(-1, 1)
    return waveforms * (torch.arange(size) < counts[:, None]), counts


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(AUDIO)),
    lengths=st.lists(st.integers(SHORT, LONG), min_size=1, max_size=4),
    more=st.integers(0, 1_000),
    seed=st.integers(0, 1_000),
)
def test_a_clip_has_the_same_embedding_alone_and_in_any_batch(
    kind: str, lengths: list[int], more: int, seed: int
) -> None:
    encoder = cached(kind)
    torch.manual_seed(1)
    tower = AudioTower(encoder, 8, "mean").eval()
    waveforms, counts = clips(lengths, seed, max(lengths) + more)
    with torch.no_grad():
        found, tokens = tower(waveforms, counts)
        for row, n in enumerate(lengths):
            embedding, alone = tower(waveforms[row : row + 1, :n])
            torch.testing.assert_close(found[row : row + 1], embedding, atol=1e-5, rtol=0)
            ours, theirs = tokens.states[row][tokens.mask[row]], alone.states[alone.mask]
            # Layer norms make states of the size 1, here from up to a thousand times smaller ones.
            torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_states_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    encoder = make(kind)
    model = AutoModel.from_config(encoder.model.config) if kind != "whisper" else None
    if model is None:
        config = replace(encoder.config, feature_extractor=None)
        assert config.architecture["model_type"] == "whisper"
        model = AutoModel.from_config(_whisper(config))
    model.eval().save_pretrained(tmp_path)
    encoder.feature_extractor.save_pretrained(tmp_path)
    loaded = HfAudioEncoder.from_config(HfAudioConfig(pretrained=str(tmp_path))).eval()
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    waveforms, _ = clips([9_000])
    inputs = extractor(waveforms[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    part = model.encoder if kind == "whisper" else model
    with torch.no_grad():
        expected = part(**inputs).last_hidden_state
        found = loaded(waveforms)
    torch.testing.assert_close(found.states, expected, atol=2e-5, rtol=1e-5)
    assert loaded.sample_rate == 16_000 and loaded.width == 24


def _whisper(config: HfAudioConfig) -> object:
    from transformers import AutoConfig

    values = dict(config.architecture)
    return AutoConfig.for_model(values.pop("model_type"), **values)


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_tokens_of_a_clip_are_valid_and_those_of_padding_are_not(kind: str) -> None:
    encoder = cached(kind)
    waveforms, counts = clips([16_000, 8_000, SHORT])
    states, mask = encoder(waveforms, counts)
    assert mask.dtype == torch.bool and mask.shape == states.shape[:2] and states.isfinite().all()
    expected = {
        "ast": [2 + 10 * 2, 2 + 5 * 2, 2 + 2 * 2],  # steps of 100 ms that begin within it
        "whisper": [50, 25, 9],  # 20 ms
        "wav2vec2-bert": [49, 24, 8],
    }.get(kind, [99, 49, 17])
    assert mask.sum(dim=1).tolist() == expected
    assert torch.equal(encoder(waveforms[:, :16_000]).mask[0], mask[0])


def test_masks_of_ast_follow_time_within_each_band() -> None:
    encoder = cached("ast")
    waveforms, counts = clips([19_000, 8_000])
    features = encoder.features(waveforms, counts)
    whole, *bands = features.mask[1, :2], *features.mask[1, 2:].chunk(2)
    assert whole.all() and all(band.tolist() == [True] * 5 + [False] * 7 for band in bands)
    # Padding is silence to the model, the same for each clip of one length.
    assert features.fbank[1, 49:].unique().numel() == 1


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_every_weight_learns(kind: str) -> None:
    encoder = make(kind).train()
    waveforms, counts = clips([9_000, SHORT])
    shared = encoder.features(waveforms, counts)
    states, mask = encoder(features=shared)
    states[mask].square().sum().backward()
    missing = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == [] and len(encoder.layers) == 2
    tower = AudioTower(encoder, 8, "attention")
    copy = MomentumCopy(tower)
    copy.update(tower, 0.5)
    found, _ = copy(features=shared)
    assert torch.equal(found, copy(waveforms, counts)[0])  # no dropout, and computed once
    criterion = nn.Module()
    criterion.model = nn.Module()
    criterion.model.text, criterion.model.audio = tower, tower
    groups = parameter_groups(criterion, 0.1, lr=1.0, layer_decay=0.5)
    assert {group["lr"] for group in groups} == {1.0, 0.5, 0.25, 0.125}
    if kind == "ast":
        plain = {id(p) for g in groups if not g["weight_decay"] for p in g["params"]}
        embeddings = encoder.model.embeddings
        assert {id(embeddings.cls_token), id(embeddings.position_embeddings)} <= plain


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_its_options_build_it_again(kind: str) -> None:
    encoder = make(kind)
    options = json.loads(json.dumps(asdict(encoder.config)))
    again = HfAudioEncoder.from_config(build_config(HfAudioConfig, options, "audio")).eval()
    assert again.config == encoder.config
    again.load_state_dict(encoder.state_dict())
    waveforms, counts = clips([9_000, SHORT])
    expected = encoder(waveforms, counts)
    for other in (again, deepcopy(encoder)):
        assert torch.equal(other(waveforms, counts).states, expected.states)


@pytest.mark.parametrize("kind", WITH_WAVES)
def test_loudness_and_offset_are_taken_out_over_the_clip_alone(kind: str) -> None:
    encoder = cached(kind)
    counts = torch.tensor([9_000, 4_000])
    noise = torch.rand(2, 12_000, generator=torch.Generator().manual_seed(0))
    x = encoder.features(0.1 * noise + 0.3, counts).waveforms
    assert x.shape == (2, 9_000) and not x[1, 4_000:].any()
    for row, n in zip(x, counts, strict=True):
        assert row[:n].mean().abs() < 1e-5 and abs(float(row[:n].std()) - 1) < 1e-2


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_silence_is_finite(kind: str) -> None:
    silence = torch.zeros(2, 9_000)
    assert cached(kind)(silence, torch.tensor([9_000, SHORT])).states.isfinite().all()


def test_the_norm_is_torchs_own_over_the_frames_of_a_clip() -> None:
    torch.manual_seed(0)
    ours, theirs = ClipGroupNorm(6, 6), nn.GroupNorm(6, 6)
    for norm in (ours, theirs):
        norm.weight.data = torch.linspace(0.5, 2, 6)
        norm.bias.data = torch.linspace(-1, 1, 6)
    x = torch.randn(3, 6, 40) * 3 + 5
    counts = torch.tensor([40, 17, 1])
    with counts_for(nn.ModuleList([ours]), counts):
        found = ours(x.requires_grad_())
    (gradient,) = torch.autograd.grad(
        sum(found[i, :, :n].square().sum() for i, n in enumerate(counts)), x
    )
    for row, n in enumerate(counts):
        alone = x.detach()[row : row + 1, :, :n].requires_grad_()
        expected = theirs(alone) if n > 1 else theirs.bias[None, :, None]  # torch refuses one frame
        torch.testing.assert_close(
            found[row : row + 1, :, :n], expected.detach(), atol=1e-5, rtol=1e-5
        )
        assert not gradient[row, :, n:].any()
        if n > 1:
            (wanted,) = torch.autograd.grad(expected.square().sum(), alone)
            torch.testing.assert_close(gradient[row : row + 1, :, :n], wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(ours(x), theirs(x))  # without counts
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("kind", ["ast", "whisper"])
def test_spec_augment_masks_spectrograms(kind: str) -> None:
    config = SpecAugmentConfig(time_width=20, freq_width=8, time_fraction=0.5)
    tower = AudioTower(make(kind), 8, "mean", config)
    waveforms, counts = clips([16_000, 9_000])
    torch.manual_seed(0)
    first, second = tower.train()(waveforms, counts)[0], tower(waveforms, counts)[0]
    assert not torch.equal(first, second)
    torch.testing.assert_close(*(tower.eval()(waveforms, counts)[0] for _ in range(2)))


def test_spec_augment_of_waveforms_is_refused() -> None:
    tower = AudioTower(make("wav2vec2"), 8, "mean", SpecAugmentConfig()).train()
    with pytest.raises(InputError, match="but the audio encoder's are a Waves"):
        tower(*clips([9_000]))


@pytest.mark.parametrize(("kind", "seconds"), [("ast", 1.295), ("whisper", 2.0)])
def test_a_clip_that_is_too_long_is_refused(kind: str, seconds: float) -> None:
    encoder = cached(kind)
    assert encoder.max_seconds == seconds
    longest = round(seconds * 16_000)
    encoder(torch.zeros(1, longest))
    with pytest.raises(InputError, match=f"longer than the {seconds:.2f} s .*dataset.max_seconds"):
        encoder(torch.zeros(1, longest + 1))
    assert cached("wav2vec2").max_seconds is None


def test_bad_arguments_are_refused() -> None:
    encoder = cached("wav2vec2")
    with pytest.raises(ValueError, match="lengths must be 165 to 9000 samples, got 100"):
        encoder(torch.zeros(1, 9_000), torch.tensor([100]))
    with pytest.raises(ValueError, match="integer samples"):
        encoder(torch.zeros(1, 9_000), torch.tensor([100.0]))
    with pytest.raises(ValueError, match="with at least one clip"):
        encoder(torch.zeros(9_000))
    with pytest.raises(ValueError, match="got both"):
        encoder(torch.zeros(1, 9_000), features=1)


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_a_model_whose_padding_tells_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"cannot use a {kind}, since it lets a clip's padding"):
        HfAudioEncoder.from_config(HfAudioConfig(architecture=REFUSED[kind]))


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    def refused(message: str, **options: object) -> None:
        with pytest.raises(InputError, match=message) as found:
            HfAudioEncoder.from_config(build_config(HfAudioConfig, options, "audio"))
        assert "\n" not in str(found.value)

    ast, whisper = AUDIO["ast"], AUDIO["whisper"]
    refused("cannot use a bert with a Wav2Vec2F", architecture={"model_type": "bert"})
    other = {"feature_extractor_type": "NoSuch"}
    refused("feature_extractor_type` is 'NoSuch'", architecture=ast, feature_extractor=other)
    other = {"feature_extractor_type": "ClapFeatureExtractor"}
    refused("cannot use a .* with a ClapF", architecture=ast, feature_extractor=other)
    longer = {"max_length": 1024}
    refused("`feature_extractor.max_length` is 1024, but the model takes 128",
            architecture=ast, feature_extractor=longer)  # fmt: skip
    longer = {"chunk_length": 30}
    refused("is 3000, but the model takes 200", architecture=whisper, feature_extractor=longer)
    wrong = {"do_normalise": False}
    refused("Did you mean `do_normalize`", architecture=AUDIO["wav2vec2"], feature_extractor=wrong)
    slow = {"sampling_rate": 10}
    waves = AUDIO["wav2vec2"]
    refused("`sample_rate` of the feature extractor", architecture=waves, feature_extractor=slow)
    heads = {**waves, "num_attention_heads": 5}
    refused("describes no wav2vec2", architecture=heads)

    make("wav2vec2").model.save_pretrained(tmp_path)
    refused("holds none of preprocessor_config.json", pretrained=str(tmp_path))
    make("whisper").model.config.save_pretrained(tmp_path / "whisper")
    fewer = {"num_hidden_layers": 1}  # of the encoder Whisper calls it encoder_layers
    where = str(tmp_path / "whisper")
    (tmp_path / "whisper" / "model.safetensors").touch()
    refused("`architecture.num_hidden_layers` does nothing", pretrained=where, architecture=fewer)
    (tmp_path / "preprocessor_config.json").write_text("{")
    refused("which says what an audio model takes, cannot be had", pretrained=str(tmp_path))


def test_dither_is_off() -> None:
    encoder = HfAudioEncoder.from_config(
        HfAudioConfig(architecture=AUDIO["whisper"], feature_extractor={"dither": 1.0})
    )
    waveforms, _ = clips([9_000])
    first, second = (encoder.features(waveforms).fbank for _ in range(2))
    assert torch.equal(first, second)


def test_autocast_leaves_features_in_float32() -> None:
    for kind in AUDIO:
        waveforms, counts = clips([9_000, SHORT])
        expected = cached(kind).features(waveforms, counts)[0]
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            found = cached(kind).features(waveforms, counts)[0]
            tokens: AudioTokens = cached(kind)(waveforms, counts)
        assert found.dtype == torch.float32 and torch.equal(found, expected)
        assert tokens.states.isfinite().all()


@pytest.mark.parametrize("kind", sorted(AUDIO))
def test_it_runs_in_bfloat16(kind: str) -> None:
    waveforms, counts = clips([9_000, SHORT])
    expected = cached(kind)(waveforms, counts)
    found = make(kind).bfloat16()(waveforms, counts)
    assert found.states.dtype == torch.bfloat16
    difference = (found.states.float() - expected.states)[expected.mask]
    assert difference.abs().mean() < 0.1 * expected.states[expected.mask].abs().mean()
