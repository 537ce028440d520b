from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio import MIN_SAMPLES, SAMPLE_RATE, fit_length, read_audio


def sine(frequency: float, rate: int, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def test_a_16_khz_mono_file_is_returned_exactly(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    read = read_audio(tmp_path / "a.wav")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, wave)


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 44100, "PCM_16"),
        ("a.wav", 48000, "PCM_24"),
        ("a.wav", 8000, "PCM_U8"),
        ("a.flac", 22050, "PCM_16"),
        ("a.ogg", 32000, "VORBIS"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_rate_channels_and_subtype(
    tmp_path: Path, name: str, rate: int, subtype: str, channels: int
) -> None:
    wave = sine(440, rate, 1.0)
    frames = np.stack([wave] * channels, axis=1)
    soundfile.write(tmp_path / name, frames, rate, subtype=subtype)
    read = read_audio(tmp_path / name)
    assert read.dtype == np.float32 and read.ndim == 1
    assert abs(read.shape[0] - SAMPLE_RATE) <= 1
    inner = slice(1600, 14400)
    np.testing.assert_allclose(read[inner], sine(440, SAMPLE_RATE, 1.0)[inner], atol=0.03)


def test_channels_are_averaged(tmp_path: Path) -> None:
    frames = np.stack([np.full(4000, 0.5), np.full(4000, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", frames, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), np.full(4000, 0.125, np.float32))


def test_resampling_removes_what_16_khz_cannot_hold(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(12000, 48000, 1.0), 48000)
    assert np.abs(read_audio(tmp_path / "a.wav")[1600:-1600]).max() < 0.01


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    wave = sine(440, SAMPLE_RATE, 0.5).astype(np.float32)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "truncated header":
        soundfile.write(path, wave, SAMPLE_RATE)
        path.write_bytes(path.read_bytes()[:20])
    elif kind == "nan":
        wave[7] = np.nan
        soundfile.write(path, wave, SAMPLE_RATE, subtype="FLOAT")
    elif kind == "no samples":
        soundfile.write(path, wave[:0], 44100)
    elif kind == "short":
        soundfile.write(path, wave[: MIN_SAMPLES - 1], SAMPLE_RATE)
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", FileNotFoundError, "no such audio file"),
        ("empty", ValueError, "the file is empty"),
        ("text", ValueError, "not readable as audio"),
        ("truncated header", ValueError, "not readable as audio"),
        ("nan", ValueError, "NaN or infinite"),
        ("no samples", ValueError, "lasts 0.000 s"),
        ("short", ValueError, "at least 0.175 s"),
    ],
)
def test_bad_files_are_named_in_one_sentence(
    tmp_path: Path, kind: str, error: type[Exception], message: str
) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(error, match=message) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_shortest_clip_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(MIN_SAMPLES), SAMPLE_RATE)
    assert read_audio(tmp_path / "a.wav").shape == (MIN_SAMPLES,)


def test_fit_length_keeps_a_short_waveform() -> None:
    wave = np.arange(10, dtype=np.float32)
    for generator in (None, torch.Generator()):
        np.testing.assert_array_equal(fit_length(wave, 10, generator), wave)
        np.testing.assert_array_equal(fit_length(wave, 11, generator), wave)


def test_fit_length_takes_the_beginning_in_evaluation() -> None:
    wave = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(fit_length(wave, 4), wave[:4])


def test_fit_length_crops_everywhere_in_training() -> None:
    wave = np.arange(10, dtype=np.float32)
    generator = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(200):
        crop = fit_length(wave, 7, generator)
        np.testing.assert_array_equal(crop, np.arange(crop[0], crop[0] + 7))
        starts.add(int(crop[0]))
    assert starts == {0, 1, 2, 3}


def test_fit_length_repeats_with_the_seed() -> None:
    wave = np.arange(1000, dtype=np.float32)
    first, second = (fit_length(wave, 9, torch.Generator().manual_seed(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_fit_length_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        fit_length(np.zeros(3, np.float32), 0)
