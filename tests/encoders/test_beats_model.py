"""The BEATs encoder against the official code's outputs, and what padding may not change."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from beats_files import save_official
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder
from atr_moco_plugin.encoders.beats.attention import GatedSelfAttention
from atr_moco_plugin.encoders.beats.relative_position import RelativePositionBias

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SSL = FIXTURES / "beats_tiny_ssl.safetensors"
FINETUNED = FIXTURES / "beats_tiny_finetuned.safetensors"


def tiny(**changes: Any) -> BeatsConfig:
    sizes: dict[str, Any] = {
        "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 4, "embed_dim": 16, "conv_pos": 16, "conv_pos_groups": 4,
    }  # fmt: skip
    return BeatsConfig(**(sizes | changes))


def noise(clips: int, samples: int, seed: int = 0) -> Tensor:
    return torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("path", [SSL, FINETUNED])
def test_official_outputs(path: Path) -> None:
    fixture = load_file(path)
    waveforms, lengths = fixture["input.waveform"], (~fixture["input.padding_mask"]).sum(1)
    encoder = BeatsEncoder.from_checkpoint(path, padding_mask="official").eval()
    with torch.no_grad():
        padded, first = encoder(waveforms, lengths), encoder(waveforms[:1])
    assert torch.equal(padded.mask, ~fixture["output.token_padding_mask"])
    # The two filterbanks differ by the rounding of the processor's FFT, which moves a few states.
    for states, name in ((padded.states, "padded"), (first.states, "first_unpadded")):
        error = (states - fixture[f"output.features_{name}"]).abs()
        assert error.flatten().quantile(0.99) < 1e-5
        assert error.max() < 5e-5
    assert first.mask.all()


def test_official_probabilities() -> None:
    fixture = load_file(FINETUNED)
    encoder = BeatsEncoder.from_checkpoint(FINETUNED).eval()
    probabilities = encoder.probabilities(fixture["input.waveform"][:1])
    torch.testing.assert_close(probabilities, fixture["output.probabilities"], atol=1e-6, rtol=0)


def test_probabilities_of_a_padded_clip() -> None:
    encoder = BeatsEncoder.from_checkpoint(FINETUNED).eval()
    waveforms, lengths = noise(2, 16_000), torch.tensor([16_000, 7_000])
    padded = encoder.probabilities(waveforms, lengths)
    alone = encoder.probabilities(waveforms[1:, :7_000])
    torch.testing.assert_close(padded[1:], alone, atol=1e-6, rtol=0)


def test_probabilities_need_a_finetuned_model() -> None:
    with pytest.raises(ValueError, match="no classification head"):
        BeatsEncoder.from_checkpoint(SSL).probabilities(noise(1, 4_000))


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(2_800, 20_000), min_size=1, max_size=4))
def test_padding_never_changes_a_clip(lengths: list[int]) -> None:
    encoder = BeatsEncoder.from_checkpoint(SSL).eval()
    # Noise where the padding is: not even its content may matter.
    waveforms = noise(len(lengths), 20_000)
    with torch.no_grad():
        states, mask = encoder(waveforms, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = encoder(waveforms[row : row + 1, :length])
            torch.testing.assert_close(states[row][mask[row]], alone.states[0], atol=1e-5, rtol=0)


def test_batch_is_cut_to_its_longest_clip() -> None:
    states, mask = BeatsEncoder(tiny())(noise(2, 48_000), torch.tensor([16_000, 2_800]))
    assert states.shape == (2, 48, 32)
    assert mask.sum(1).tolist() == [48, 8]


def test_batch_order_does_not_matter() -> None:
    encoder = BeatsEncoder.from_checkpoint(SSL).eval()
    waveforms, lengths = noise(4, 9_000), torch.tensor([9_000, 5_000, 3_000, 8_000])
    order = torch.tensor([2, 0, 3, 1])
    states, mask = encoder(waveforms, lengths)
    permuted = encoder(waveforms[order], lengths[order])
    assert torch.equal(permuted.mask, mask[order])
    torch.testing.assert_close(permuted.states, states[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_row_without_valid_tokens_stays_finite(dtype: torch.dtype) -> None:
    transformer = BeatsEncoder(tiny()).encoder.to(dtype)
    x = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.arange(24) < torch.tensor([[24], [0]])
    states = transformer(x, mask)
    states.float().square().sum().backward()
    assert states.isfinite().all()
    assert all(p.grad.isfinite().all() for p in transformer.parameters())


@pytest.mark.parametrize("gated", [True, False])
def test_attention_equals_its_formula(gated: bool) -> None:
    torch.manual_seed(0)
    config = tiny(gru_rel_pos=gated, attention_dropout=0.0)
    attention = GatedSelfAttention(config).double()
    bias = (torch.randn(4, 9, 9) * 3).double()
    x, valid = torch.randn(2, 9, 32).double(), [9, 5]
    key_bias = torch.zeros(2, 1, 1, 9).double()
    key_bias[1, ..., 5:] = -3e4
    out = attention(x, bias, key_bias)

    heads = torch.zeros(2, 9, 32).double()
    for clip in range(2):
        q, k, v = (p(x[clip]) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            for query in range(9):
                gate = 1.0
                if gated:
                    raw = attention.grep_linear(q[query, part])
                    a, b = raw[:4].sum().sigmoid(), raw[4:].sum().sigmoid()
                    gate = a * (b * attention.grep_a[0, head, 0, 0] - 1) + 2
                keys = k[: valid[clip], part]
                scores = keys @ q[query, part] / math.sqrt(8)
                weights = (scores + gate * bias[head, query, : valid[clip]]).softmax(0)
                heads[clip, query, part] = weights @ v[: valid[clip], part]
    torch.testing.assert_close(out, attention.out_proj(heads), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"deep_norm": False},
        {"gru_rel_pos": False},
        {"gru_rel_pos": False, "relative_position_embedding": False},
        {"activation_fn": "relu", "conv_bias": True},
        {"conv_pos": 9},  # an odd kernel needs no cut
        {"embed_dim": 32},  # no projection
        {"input_patch_size": 8},
        {"input_patch_size": 20},  # a remainder of mel bins
    ],
)
def test_variants_of_the_architecture(changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = BeatsEncoder(tiny(**changes)).eval()
    waveforms, lengths = noise(2, 12_000), torch.tensor([12_000, 6_000])
    states, mask = encoder(waveforms, lengths)
    alone = encoder(waveforms[1:, :6_000])
    torch.testing.assert_close(states[1][mask[1]], alone.states[0], atol=1e-5, rtol=0)
    save_official(encoder, tmp_path / "variant.pt")
    loaded = BeatsEncoder.from_checkpoint(tmp_path / "variant.pt").eval()
    assert torch.equal(loaded(waveforms, lengths).states, states)


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    encoder = BeatsEncoder(tiny())
    states, _ = encoder(noise(2, 12_000), torch.tensor([12_000, 6_000]))
    (states * torch.randn_like(states)).sum().backward()
    for name, parameter in encoder.named_parameters():
        # A constant added to all keys cancels in the softmax, so its gradient is zero by nature.
        assert parameter.grad is not None, name
        assert name.endswith("k_proj.bias") or parameter.grad.abs().max() > 1e-6, name


def test_head_of_a_finetuned_model_is_frozen() -> None:
    encoder = BeatsEncoder.from_checkpoint(FINETUNED)
    encoder(noise(1, 4_000)).states.sum().backward()
    frozen = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert frozen == ["predictor.weight", "predictor.bias"]
    assert not any(p.requires_grad for p in encoder.predictor.parameters())


def test_initialisation_is_deep_norms() -> None:
    torch.manual_seed(0)
    config = BeatsConfig(
        encoder_layers=8, encoder_embed_dim=192, encoder_ffn_embed_dim=768,
        encoder_attention_heads=4, embed_dim=128, conv_pos=32,
    )  # fmt: skip
    layer = BeatsEncoder(config).encoder.layers[3]
    beta, square = (8 * 8) ** -0.25, math.sqrt(2 / (192 + 192))
    expected = {
        layer.self_attn.q_proj: square,
        layer.self_attn.k_proj: square,
        layer.self_attn.v_proj: square * beta,
        layer.self_attn.out_proj: square * beta,
        layer.fc1: math.sqrt(2 / (192 + 768)) * beta,
        layer.fc2: math.sqrt(2 / (192 + 768)) * beta,
    }
    for linear, std in expected.items():
        assert linear.weight.std().item() == pytest.approx(std, rel=0.03)
        assert linear.bias.eq(0).all()
    assert layer.alpha == 2.0


def test_random_encoder_tells_clips_and_layers_learn_alike() -> None:
    torch.manual_seed(0)
    encoder = BeatsEncoder(tiny(encoder_layers=6)).eval()
    tone = torch.sin(torch.arange(8_000) * 0.3)[None] * 0.1
    states = encoder(torch.cat([noise(1, 8_000), tone])).states
    assert (states[0] - states[1]).norm() > 0.1 * states[0].norm()
    (states * torch.randn_like(states)).sum().backward()
    norms = [layer.fc1.weight.grad.norm() for layer in encoder.encoder.layers]
    assert max(norms) < 10 * min(norms)


@pytest.mark.parametrize(
    "name", ["dropout", "attention_dropout", "activation_dropout", "dropout_input"]
)
def test_each_dropout_acts_in_training_only(name: str) -> None:
    off = dict.fromkeys(
        ["dropout", "attention_dropout", "activation_dropout", "dropout_input"], 0.0
    )
    encoder = BeatsEncoder(tiny(**(off | {name: 0.5})))
    clip = noise(1, 4_000)
    assert not torch.equal(encoder(clip).states, encoder(clip).states)
    encoder.eval()
    assert torch.equal(encoder(clip).states, encoder(clip).states)


def test_deepcopy_is_independent() -> None:
    encoder = BeatsEncoder(tiny()).eval()
    clip = noise(1, 4_000)
    twin = copy.deepcopy(encoder)
    before = encoder(clip).states
    assert torch.equal(twin(clip).states, before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert torch.equal(encoder(clip).states, before)
    assert not torch.equal(twin(clip).states, before)


def test_bfloat16_autocast_stays_near_float32() -> None:
    encoder = BeatsEncoder.from_checkpoint(SSL).eval()
    waveforms, lengths = noise(2, 12_000), torch.tensor([12_000, 6_000])
    expected, mask = encoder(waveforms, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, _ = encoder(waveforms, lengths)
    states.float().square().sum().backward()
    error = (states.float() - expected)[mask].norm() / expected[mask].norm()
    assert error < 0.03
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_bfloat16_weights() -> None:
    encoder = BeatsEncoder(tiny()).eval()
    arguments = noise(2, 4_000), torch.tensor([4_000, 2_800])
    expected, mask = encoder(*arguments)
    states, _ = encoder.to(torch.bfloat16)(*arguments)
    assert (states.float() - expected)[mask].norm() < 0.05 * expected[mask].norm()
    assert states.dtype == torch.bfloat16
    assert states.isfinite().all()


def test_relative_position_bias_is_owned_once() -> None:
    encoder = BeatsEncoder(tiny())
    assert sum(isinstance(module, RelativePositionBias) for module in encoder.modules()) == 1


@pytest.mark.parametrize(
    ("waveforms", "lengths", "message"),
    [
        (torch.zeros(4_000), None, r"waveforms must be \[B, samples\]"),
        (torch.zeros(0, 4_000), None, "at least one clip"),
        (torch.zeros(2, 2_799), None, "Clip 0 has 2799 samples, below the 2800"),
        (torch.zeros(2, 4_000), torch.tensor([4_000, 300]), "Clip 1 has 300 samples"),
        (torch.zeros(2, 4_000), torch.tensor([4_000, 4_001]), r"lengths\[1\] is 4001"),
        (torch.zeros(2, 4_000), torch.tensor([4_000]), r"lengths must be \[2\] integer"),
        (torch.zeros(2, 4_000), torch.ones(2), r"lengths must be \[2\] integer"),
        (torch.zeros(2, 4_000, dtype=torch.int16), None, "scale integer samples"),
    ],
)
def test_refuses(waveforms: Tensor, lengths: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeatsEncoder(tiny())(waveforms, lengths)
