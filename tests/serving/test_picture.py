"""The picture of a sound."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra serve is not installed")

from numpy.typing import NDArray
from PIL import Image

from atr_moco_plugin.serving.picture import COLUMNS, MELS, picture


def opacity(waveform: NDArray[np.float32], rate: int = 16_000, dark: bool = False) -> np.ndarray:
    """``[MELS, COLUMNS]`` from 0 to 255, highest pitch first."""
    image = Image.open(io.BytesIO(picture(waveform, rate, dark=dark)))
    assert image.format == "PNG" and image.size == (COLUMNS, MELS)
    return np.asarray(image.convert("RGBA"))[..., 3].astype(float)


def tone(frequency: float, seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000, 96_000])
def test_time_is_to_the_right_and_pitch_upwards(rate: int) -> None:
    low, high = tone(300, 1, rate), tone(3_000, 1, rate)
    seen = opacity(np.concatenate([low, high]), rate)
    row = seen.argmax(axis=0)
    first, second = row[40 : COLUMNS // 2 - 40], row[COLUMNS // 2 + 40 : -40]
    assert first.min() > second.max()
    assert np.ptp(first) <= 1 and np.ptp(second) <= 1


def test_silence_is_empty_and_so_is_the_noise_of_16_bits() -> None:
    assert opacity(np.zeros(16_000, np.float32)).max() == 0
    noise = np.random.default_rng(0).integers(-1, 2, 16_000) / 2**15
    assert opacity(noise.astype(np.float32)).mean() < 60


def test_a_louder_sound_has_the_same_picture() -> None:
    quiet, loud = opacity(0.1 * tone(440, 1)), opacity(tone(440, 1))
    assert np.abs(quiet - loud).mean() < 2


@pytest.mark.parametrize("samples", [1, 100, 16_000 * 60])
def test_any_length_has_a_picture(samples: int) -> None:
    assert opacity(np.full(samples, 0.1, np.float32)).max() > 0


def test_light_and_dark_differ_in_colour_alone() -> None:
    sound = tone(440, 1)
    colours = []
    for dark in (False, True):
        image = Image.open(io.BytesIO(picture(sound, 16_000, dark=dark)))
        colours.append(np.asarray(image.convert("RGBA")).astype(float))
    light, dark = colours
    strongest = light[..., 3] == 255
    assert (strongest == (dark[..., 3] == 255)).all() and strongest.any()
    assert light[strongest][:, :3].mean() < 128 < dark[strongest][:, :3].mean()
