"""Fingerprints: against a slow loop over spectra and bands, and what does not change them."""

from __future__ import annotations

import numpy as np
import pytest
from recordings import recording

from atr_moco_plugin.inspection.fingerprint import (
    BAND_EDGES,
    SAMPLE_RATE,
    SECONDS_A_WORD,
    SECONDS_OF_A_WORD,
    fingerprint,
)

FRAME, HOP, LAG = 2048, 128, 6


def slow_words(wave: np.ndarray) -> list[int]:
    window = np.hanning(FRAME + 1)[:-1]
    hertz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
    edges = np.rint(BAND_EDGES * FRAME / SAMPLE_RATE) * SAMPLE_RATE / FRAME
    energies = []
    for start in range(0, len(wave) - FRAME + 1, HOP):
        power = np.abs(np.fft.rfft(wave[start : start + FRAME].astype(np.float64) * window)) ** 2
        bands = zip(edges, edges[1:], strict=False)
        energies.append([power[(hertz >= low) & (hertz < high)].sum() for low, high in bands])
    loudest = max(map(sum, energies))
    words = []
    for before, now in zip(energies, energies[LAG:], strict=False):
        word = 0
        for k in range(32):
            word = 2 * word + ((now[k] - now[k + 1]) > (before[k] - before[k + 1]))
        heard = min(sum(before), sum(now)) > 1e-6 * loudest
        words.append(max(word, 1) if heard else 0)
    return words


def test_words_are_those_of_a_slow_loop() -> None:
    wave = recording(1, 1.5, SAMPLE_RATE)
    wave[5000:9000] = 0
    words = fingerprint([wave])
    expected = np.array(slow_words(wave), np.uint32)
    assert len(words) == len(expected)
    assert np.array_equal(words == 0, expected == 0)
    assert (words == 0).any()
    # float32 and float64 may disagree on a bit that hangs on rounding.
    assert (words == expected).mean() > 0.98


@pytest.mark.parametrize("size", [1, 100, 1000, 30_000])
def test_words_do_not_depend_on_how_the_waveform_is_cut_into_blocks(size: int) -> None:
    wave = recording(2, 3.0, SAMPLE_RATE)
    blocks = [wave[k : k + size] for k in range(0, 4000 if size == 1 else len(wave), size)]
    whole = fingerprint([np.concatenate(blocks)])
    words = fingerprint(blocks)
    assert words.dtype == np.uint32
    assert (words == whole).mean() > 0.98


def test_level_and_polarity_change_nothing() -> None:
    wave = recording(3, 2.0, SAMPLE_RATE)
    words = fingerprint([wave])
    for factor in (-1.0, 0.125, 4.0):
        assert np.array_equal(fingerprint([np.float32(factor) * wave]), words)


def test_a_word_stands_for_its_time() -> None:
    number = 10
    samples = round((SECONDS_OF_A_WORD + (number - 1) * SECONDS_A_WORD) * SAMPLE_RATE)
    assert len(fingerprint([recording(1, 4.0, SAMPLE_RATE)[:samples]])) == number
    assert len(fingerprint([recording(1, 4.0, SAMPLE_RATE)[: samples - 1]])) == number - 1


@pytest.mark.parametrize("samples", [0, 1, FRAME, FRAME + LAG * HOP - 1])
def test_what_is_shorter_than_a_word_has_none(samples: int) -> None:
    assert len(fingerprint([recording(1)[:samples]])) == 0


def test_silence_says_nothing() -> None:
    assert not fingerprint([np.zeros(20_000, np.float32)]).any()
