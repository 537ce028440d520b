"""BEATs' filterbank against torchaudio's port of Kaldi and the official code's outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.encoders.beats.fbank import fbank, mel_filterbank, povey_window

kaldi = pytest.importorskip("torchaudio.compliance.kaldi", reason="the reference is torchaudio's")

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def reference(waveforms: Tensor) -> Tensor:
    """Clip by clip, as the official code computes it."""
    features = [
        kaldi.fbank(clip[None] * 2**15, num_mel_bins=128, sample_frequency=16000)
        for clip in waveforms
    ]
    return (torch.stack(features) - 15.41663) / (2 * 6.55582)


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(400, 20_000), seed=st.integers(0, 99), level=st.floats(1e-4, 1.0))
def test_equals_torchaudio(samples: int, seed: int, level: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    waveforms = (torch.rand(2, samples, generator=generator) * 2 - 1) * level
    features = fbank(waveforms)
    assert features.shape == (2, 1 + (samples - 400) // 160, 128)
    torch.testing.assert_close(features, reference(waveforms), atol=1e-5, rtol=0)


def test_tone_equals_torchaudio() -> None:
    # A pure tone leaves most bands to rounding, where another order of operations would show.
    tone = torch.sin(torch.arange(16_000) * 2 * torch.pi * 440 / 16_000)[None] * 0.5
    torch.testing.assert_close(fbank(tone), reference(tone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["ssl", "finetuned"])
def test_equals_the_official_features(name: str) -> None:
    fixture = load_file(FIXTURES / f"beats_tiny_{name}.safetensors")
    error = (fbank(fixture["input.waveform"]) - fixture["output.fbank"]).abs()
    # The fixture comes from another processor, whose FFT rounds otherwise: bands with next to no
    # energy differ, as much as the fixture itself does from float64 (3.6e-5).
    assert error.flatten().quantile(0.999) < 1e-5
    assert error.max() < 1e-4


def test_blocks_of_clips_change_nothing() -> None:
    # 498 frames a clip: two fit into a block, the third is in another.
    waveforms = torch.rand(3, 80_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = torch.cat([fbank(clip[None]) for clip in waveforms])
    torch.testing.assert_close(fbank(waveforms), alone, atol=1e-6, rtol=0)


def test_silence_is_the_floor_and_not_zero() -> None:
    features = fbank(torch.zeros(1, 1600))
    torch.testing.assert_close(features, torch.full_like(features, -2.3917), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    waveforms = torch.rand(1, 4000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", dtype=dtype):
        features = fbank(waveforms)
    assert features.dtype == torch.float32
    assert torch.equal(features, fbank(waveforms))


def test_half_precision_waveforms_give_finite_float32() -> None:
    features = fbank(torch.ones(1, 4000, dtype=torch.float16).cumsum(1) / 4000)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_waveforms_have_a_gradient_after_a_first_use_under_inference_mode() -> None:
    povey_window.cache_clear()
    mel_filterbank.cache_clear()
    waveforms = torch.rand(1, 4000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        fbank(waveforms)
    waveforms.requires_grad_()
    fbank(waveforms).sum().backward()
    assert waveforms.grad.isfinite().all()
    assert waveforms.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (torch.zeros(1600), r"\[B, samples\] floating point"),
        (torch.zeros(1, 1600, dtype=torch.int16), "scale integer samples"),
        (torch.zeros(1, 399), "at least 400 samples"),
    ],
)
def test_refuses(waveforms: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fbank(waveforms)
