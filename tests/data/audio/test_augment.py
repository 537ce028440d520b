from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atr_moco_plugin.data.audio.augment import AugmentConfig, augment
from atr_moco_plugin.data.loading.training import LoadingOptions

FULL = AugmentConfig(
    gain_db=6, noise_probability=0.7, noise_min_snr_db=5, shift_seconds=0.01, invert_probability=0.5
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(samples: int = 16_000, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, samples).astype(np.float32)


configs = st.builds(
    AugmentConfig,
    gain_db=st.floats(0, 60),
    noise_probability=st.floats(0, 1),
    noise_min_snr_db=st.floats(-100, 20),
    noise_max_snr_db=st.floats(20, 100),
    shift_seconds=st.floats(0, 20),
    invert_probability=st.floats(0, 1),
)


@settings(deadline=None, max_examples=200)
@example(
    wave=np.array([3.0450083e38], np.float32),
    config=AugmentConfig(noise_probability=1.0, noise_min_snr_db=-3.0, noise_max_snr_db=20.0),
    seed=0,
)
@given(
    wave=arrays(
        np.float32,
        st.integers(0, 40),
        elements=st.one_of(
            st.floats(-1, 1, width=32),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
    ),
    config=configs,
    seed=st.integers(0, 2**62),
)
def test_it_is_finite_keeps_the_length_and_repeats(
    wave: np.ndarray, config: AugmentConfig, seed: int
) -> None:
    before = wave.copy()
    result = augment(wave, config, 16_000, seeded(seed))
    assert result.dtype == np.float32 and result.shape == wave.shape
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(wave, before)
    np.testing.assert_array_equal(augment(wave, config, 16_000, seeded(seed)), result)
    if wave.size:
        peak = max(1.0, float(np.abs(wave).max()))
        assert float(np.abs(result).max()) <= peak * (1 + 1e-6)


def test_nothing_is_done_by_default() -> None:
    np.testing.assert_array_equal(augment(noise(), AugmentConfig(), 16_000, seeded(0)), noise())


def test_a_run_that_asks_for_nothing_is_refused() -> None:
    for nothing in (AugmentConfig(), AugmentConfig(noise_min_snr_db=5)):
        (problem,) = LoadingOptions(augment=nothing).loading_problems()
        assert "`augment` changes nothing: set `gain_db`" in problem
    assert not list(LoadingOptions(augment=AugmentConfig(shift_seconds=1)).loading_problems())


def test_seeds_differ() -> None:
    results = {augment(noise(), FULL, 16_000, seeded(seed)).tobytes() for seed in range(10)}
    assert len(results) == 10


def test_silence_stays_silent() -> None:
    silent = np.zeros(100, np.float32)
    for seed in range(5):
        np.testing.assert_array_equal(np.abs(augment(silent, FULL, 16_000, seeded(seed))), silent)


def test_gain_is_uniform_in_decibels() -> None:
    wave = noise()
    gains = []
    for seed in range(300):
        result = augment(wave, AugmentConfig(gain_db=6), 16_000, seeded(seed))
        factor = float(result[0] / wave[0])
        np.testing.assert_allclose(result, factor * wave, rtol=1e-5)
        gains.append(20 * np.log10(factor))
    assert -6 <= min(gains) < -5.5 and 5.5 < max(gains) <= 6 and abs(np.mean(gains)) < 0.7


def test_a_loud_clip_is_scaled_and_not_clipped() -> None:
    wave = np.sin(np.arange(1000, dtype=np.float32))
    for seed in range(20):
        result = augment(wave, AugmentConfig(gain_db=12), 16_000, seeded(seed))
        assert np.abs(result).max() <= 1 + 1e-6
        np.testing.assert_allclose(np.corrcoef(result, wave)[0, 1], 1, atol=1e-6)


def test_noise_has_the_ratio_asked_for() -> None:
    wave = noise(level=0.05)
    config = AugmentConfig(noise_probability=1, noise_min_snr_db=10, noise_max_snr_db=10)
    added = augment(wave, config, 16_000, seeded(0)) - wave
    ratio = 10 * np.log10(np.mean(wave**2) / np.mean(added**2))
    assert abs(ratio - 10) < 0.2
    half = AugmentConfig(noise_probability=0.5)
    changed = [not np.array_equal(augment(wave, half, 16_000, seeded(s)), wave) for s in range(200)]
    assert 70 < sum(changed) < 130


def test_shift_rolls_both_ways_within_its_limit() -> None:
    wave = np.arange(16_000, dtype=np.float32) / 16_000
    config = AugmentConfig(shift_seconds=0.1)
    shifts = []
    for seed in range(100):
        result = augment(wave, config, 16_000, seeded(seed))
        by = int(np.argmin(result))
        by = by - 16_000 if by > 8_000 else by
        np.testing.assert_array_equal(result, np.roll(wave, by))
        shifts.append(by)
    assert -1600 <= min(shifts) < -1200 and 1200 < max(shifts) <= 1600


@pytest.mark.parametrize("sample_rate", [16_000, 48_000])
def test_a_shift_is_in_seconds_at_any_rate(sample_rate: int) -> None:
    wave = np.arange(sample_rate, dtype=np.float32) / sample_rate
    config = AugmentConfig(shift_seconds=0.1)
    first = [int(np.argmin(augment(wave, config, sample_rate, seeded(s)))) for s in range(100)]
    seconds = [by / sample_rate if 2 * by < sample_rate else by / sample_rate - 1 for by in first]
    assert -0.1 <= min(seconds) < -0.075 and 0.075 < max(seconds) <= 0.1


def test_polarity_is_inverted_for_a_share() -> None:
    wave = noise()
    config = AugmentConfig(invert_probability=0.3)
    signs = [
        float(np.sign(augment(wave, config, 16_000, seeded(s))[0] / wave[0])) for s in range(300)
    ]
    assert set(signs) == {-1.0, 1.0} and 60 < signs.count(-1.0) < 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain_db": -1}, "`gain_db` is -1, expected 0 or more"),
        ({"gain_db": float("nan")}, "`gain_db` is nan"),
        ({"shift_seconds": float("inf")}, "`shift_seconds` is inf"),
        ({"noise_probability": 2}, "`noise_probability` is 2, expected 0 to 1"),
        ({"invert_probability": -0.1}, "`invert_probability` is -0.1"),
        ({"noise_min_snr_db": 50}, "`noise_min_snr_db` is 50 and `noise_max_snr_db` 40.0"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**options)
