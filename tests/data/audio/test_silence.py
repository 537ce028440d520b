"""Silence, from as little of a file as tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.silence import is_silent, silent_samples
from atr_moco_plugin.data.audio.source import MemoryFile, Segment

RATE = 8_000


def noise(level: float, seconds: float) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    return (level * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def written(path: Path, *parts: NDArray[np.float32], channels: int = 1) -> Path:
    wave = np.concatenate(parts)
    soundfile.write(path, np.stack([wave] * channels, axis=1), RATE, subtype="PCM_24")
    return path


def test_windows_are_told_by_their_level() -> None:
    quiet, loud = noise(1e-4, 0.5), noise(1e-2, 0.5)
    assert silent_samples(np.concatenate([quiet, loud]), RATE) == len(quiet)
    assert silent_samples(np.zeros(7, np.float32), RATE) == 7


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_is_silent_to_its_end(tmp_path: Path, suffix: str) -> None:
    silence, late = np.zeros(3 * RATE, np.float32), noise(0.1, 0.1)
    assert is_silent(written(tmp_path / f"a.{suffix}", silence))
    assert is_silent(written(tmp_path / f"b.{suffix}", noise(1e-4, 2.5), channels=2))
    path = written(tmp_path / f"c.{suffix}", silence, late)
    assert not is_silent(path)
    assert is_silent(Segment(str(path), 0.5, 2.5)) and not is_silent(Segment(str(path), 2.5, 3.1))
    assert is_silent(MemoryFile((tmp_path / f"a.{suffix}").read_bytes(), "sound"))


def test_channels_that_cancel_are_silent(tmp_path: Path) -> None:
    wave = noise(0.1, 1.0)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), RATE, subtype="FLOAT")
    assert is_silent(tmp_path / "a.wav")
