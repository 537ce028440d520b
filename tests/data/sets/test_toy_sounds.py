from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from atr_moco_plugin.data.sets.toy_sounds import SOUNDS, synthesize

FACTORS = (0.58, 1.0, 1.75)


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("samples", [1600, 16000, 32000])
def test_every_sound_has_unit_peak_and_silent_ends(sound: str, samples: int) -> None:
    for pitch in FACTORS:
        wave = synthesize(sound, samples, pitch, np.random.default_rng(0))
        assert wave.shape == (samples,) and wave.dtype == np.float32
        assert np.abs(wave).max() == pytest.approx(1, abs=1e-5)
        assert wave[0] == 0 and wave[-1] == 0


@pytest.mark.parametrize("sound", SOUNDS)
def test_a_sound_follows_its_generator(sound: str) -> None:
    one, same, other = (
        synthesize(sound, 16000, 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def features(wave: np.ndarray) -> np.ndarray:
    """Mean and deviation over time of the log power in 24 log-spaced bands, 25 ms frames."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400)
    spectrum = np.abs(np.fft.rfft(frames, 1024)) ** 2
    edges = np.geomspace(2, 512, 25).astype(int)
    bands = np.stack([spectrum[:, a : b + 1].mean(axis=1) for a, b in pairwise(edges)], 1)
    log = np.log(bands + 1e-4)
    modulation = np.abs(np.fft.rfft(log.mean(axis=1) - log.mean()))[1:20] / len(log)
    return np.concatenate([log.mean(axis=0), log.std(axis=0), 3 * modulation])


def test_sounds_are_told_apart_by_a_nearest_neighbour_at_every_pitch() -> None:
    train, labels = [], []
    for sound in SOUNDS:
        for pitch in FACTORS:
            for seed in (0, 1):
                train.append(features(synthesize(sound, 24000, pitch, np.random.default_rng(seed))))
                labels.append((sound, pitch))
    hits = []
    for sound in SOUNDS:
        for pitch in FACTORS:
            probe = features(synthesize(sound, 20000, pitch * 1.02, np.random.default_rng(9)))
            nearest = np.argmin([np.abs(probe - row).sum() for row in train])
            hits.append(labels[nearest][0] == sound)
    assert np.mean(hits) > 0.95
