"""Waveforms as files inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from atr_moco_plugin.report.sound import sound_uri


def decode(uri: str) -> tuple[np.ndarray, int]:
    head, _, data = uri.partition(",")
    assert head in ("data:audio/mpeg;base64", "data:audio/flac;base64")
    return soundfile.read(io.BytesIO(base64.b64decode(data)))


def tone(seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(16_000 * seconds)) / 16_000)).astype("f4")


def test_what_comes_out_sounds_like_what_went_in() -> None:
    uri = sound_uri(tone(2.0), 16_000)
    samples, rate = decode(uri)
    assert rate == 16_000 and abs(len(samples) - 32_000) < 3_000
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() * rate / len(samples) - 440) < 2
    assert np.sqrt((samples**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert len(uri) < 2 * 64_000 and sound_uri(tone(2.0), 16_000) == uri


def test_too_loud_samples_are_clipped_and_silence_is_fine() -> None:
    assert np.abs(decode(sound_uri(20 * tone(0.5), 16_000))[0]).max() < 1.5
    assert np.abs(decode(sound_uri(np.zeros(8_000, "f4"), 16_000))[0]).max() < 1e-3


@pytest.mark.parametrize(
    "samples", [np.zeros(0), np.zeros((2, 8_000)), np.array([0.0, np.nan] * 4_000)]
)
def test_what_is_no_sound_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite samples of one channel"):
        sound_uri(samples, 16_000)


@pytest.mark.parametrize(
    ("rate", "kind"), [(32_000, "mpeg"), (48_000, "mpeg"), (22_051, "flac"), (96_000, "flac")]
)
def test_it_plays_at_the_rate_of_the_model(rate: int, kind: str) -> None:
    wave = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype("f4")
    uri = sound_uri(wave, rate)
    samples, found = decode(uri)
    assert uri.startswith(f"data:audio/{kind};") and found == rate
    assert abs(len(samples) / rate - 1) < 0.1


def test_flac_where_mp3_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"FLAC": "FLAC"})
    samples, rate = decode(sound_uri(tone(0.5), 16_000))
    assert rate == 16_000 and np.allclose(samples, tone(0.5), atol=1e-4)
