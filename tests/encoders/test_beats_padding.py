"""Token counts of padded clips, against the mask computed sample by sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.encoders.beats.padding import samples_for, tokens_of, valid_tokens


def official_mask(length: int, samples: int) -> list[bool]:
    """The published mask, ``True`` at padded tokens: equal chunks of samples, then of frames."""
    frames = 1 + (samples - 400) // 160
    mask = torch.arange(samples) >= length
    for chunks in (frames, 8 * (frames // 16)):
        mask = mask[: mask.numel() // chunks * chunks].view(chunks, -1).all(-1)
    return mask.tolist()


@given(samples=st.integers(2_800, 60_000), share=st.floats(0.0, 1.0))
def test_official_count_is_that_of_the_published_mask(samples: int, share: float) -> None:
    length = 2_800 + int(share * (samples - 2_800))
    (count,) = valid_tokens([length], samples, 16, "official")
    mask = official_mask(length, samples)
    assert mask == [token >= count for token in range(len(mask))]


def test_a_padded_clip_has_its_own_tokens_and_not_the_official_ones() -> None:
    assert valid_tokens([30_000], 48_000, 16, "exact") == [88] == [tokens_of(30_000, 16)]
    assert valid_tokens([30_000], 48_000, 16, "official") == [94]


@given(steps=st.integers(1, 100), patch=st.sampled_from([8, 16, 32]))
def test_fewest_samples(steps: int, patch: int) -> None:
    bands, samples = 128 // patch, samples_for(steps, patch)
    assert tokens_of(samples, patch) == steps * bands
    assert steps == 1 or tokens_of(samples - 1, patch) == (steps - 1) * bands


def test_ten_seconds() -> None:
    assert tokens_of(160_000, 16) == 496


@pytest.mark.parametrize("padding_mask", ["exact", "official"])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4_000, 2_799], "Clip 1 has 2799 samples, below the 2800 .0.175 s. "),
        ([0], "Clip 0 has 0 samples"),
        ([4_000, 4_000, 4_001], r"lengths\[2\] is 4001, but waveforms have 4000 samples"),
    ],
)
def test_refuses(lengths: list[int], message: str, padding_mask: str) -> None:
    with pytest.raises(ValueError, match=message):
        valid_tokens(lengths, 4_000, 16, padding_mask)
