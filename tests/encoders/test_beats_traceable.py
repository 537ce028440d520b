"""BEATs in traceable operations: the same states, without a trace and without ONNX."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY_AUDIO
from torch import Tensor

from atr_moco_plugin.encoders.beats import BeatsConfig, BeatsEncoder

SHORTEST = 2800


@pytest.fixture(scope="module")
def encoder() -> BeatsEncoder:
    torch.manual_seed(0)
    options: Any = TINY_AUDIO
    return BeatsEncoder(BeatsConfig(**options)).eval()


def _same(encoder: BeatsEncoder, waveforms: Tensor, lengths: Tensor, most: float = 1e-4) -> None:
    with torch.inference_mode():
        expected = encoder(waveforms, lengths)
        found = encoder.traceable()(waveforms, lengths)
    assert torch.equal(found.mask, expected.mask)
    valid = expected.mask
    torch.testing.assert_close(found.states[valid], expected.states[valid], atol=most, rtol=0)


@pytest.mark.parametrize(
    "lengths",
    [[SHORTEST], [16_000], [SHORTEST + 2559, SHORTEST], [20_000, 5_000, 19_999], [7_000, 33_333]],
)
def test_states_of_noise(encoder: BeatsEncoder, lengths: list[int]) -> None:
    torch.manual_seed(1)
    waveforms = 0.1 * torch.randn(len(lengths), max(lengths))
    for waveform, length in zip(waveforms, lengths, strict=True):
        waveform[length:] = 0
    _same(encoder, waveforms, torch.tensor(lengths))


@pytest.mark.parametrize("sound", ["silence", "constant", "tone", "16-bit tone", "click"])
def test_states_of_sounds_with_empty_bands(encoder: BeatsEncoder, sound: str) -> None:
    time = torch.arange(16_000)
    tone = 0.5 * torch.sin(2 * math.pi * 440 * time / 16_000)
    waveform = {
        "silence": torch.zeros(16_000),
        "constant": torch.full((16_000,), 0.5),
        "tone": tone,
        "16-bit tone": (tone * 2**15).round() / 2**15,
        "click": (time == 8_000).float(),
    }[sound]
    # What is in most bands of a tone is rounding, of the one transform or of the other.
    _same(encoder, waveform[None], torch.tensor([16_000]), most=2e-3 if "tone" in sound else 1e-4)


def test_a_clip_has_its_states_alone_whichever_mask(encoder: BeatsEncoder) -> None:
    official = BeatsEncoder(replace(encoder.config, padding_mask="official")).eval()
    official.load_state_dict(encoder.state_dict())
    torch.manual_seed(2)
    waveforms = 0.1 * torch.randn(2, 20_000)
    waveforms[1, 9_000:] = 0
    with torch.inference_mode():
        found = official.traceable()(waveforms, torch.tensor([20_000, 9_000]))
        alone = official(waveforms[1:, :9_000])
    states = found.states[1][found.mask[1]]
    torch.testing.assert_close(states, alone.states[0], atol=1e-5, rtol=0)


def test_a_clip_that_is_too_short_is_nan_and_the_others_are_not(encoder: BeatsEncoder) -> None:
    waveforms = torch.zeros(2, 8_000)
    with torch.inference_mode():
        found = encoder.traceable()(waveforms, torch.tensor([8_000, SHORTEST - 1]))
    assert found.states[0].isfinite().all()
    assert found.states[1].isnan().all()


def test_it_is_a_copy(encoder: BeatsEncoder) -> None:
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    encoder.traceable().encoder.requires_grad_(True).layer_norm.weight.data.zero_()
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())
