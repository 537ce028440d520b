"""A data set with things to find, as files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

EVIL = """<script>alert(1)</script>" onmouseover="alert(2)' {{ 123 * 1000 }}"""


def noise(seed: int, seconds: float = 3.0, rate: int = 16_000) -> np.ndarray:
    """Noise whose level and colour change, so that it can be told from other noise."""
    rng = np.random.default_rng(seed)
    parts = [
        np.convolve(rng.standard_normal(rate // 4), rng.standard_normal(9), "same")
        for _ in range(round(4 * seconds))
    ]
    wave = np.concatenate(parts)
    return 0.5 * wave / np.abs(wave).max()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five clips: one of train is in test too, one is silent, one is clipped, one is no audio."""
    root = tmp_path / "set"
    root.mkdir()
    dog = noise(0)
    soundfile.write(root / "dog.wav", dog, 16_000)
    soundfile.write(root / "copy.wav", 0.5 * dog, 16_000)
    soundfile.write(root / "silent.wav", np.zeros(32_000), 16_000)
    soundfile.write(root / "loud.wav", np.clip(9 * noise(1), -1, 1), 16_000)
    (root / "broken.wav").write_bytes(b"RIFF")
    rows = [
        ("dog.wav", "A dog barks", "train"),
        ("dog.wav", "A dog is barking", "train"),
        ("silent.wav", "A dog barks!", "train"),
        ("loud.wav", EVIL, "train"),
        ("broken.wav", "Rain", "valid"),
        ("copy.wav", "The dogs bark", "test"),
    ]
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption", "split"), *rows])
    return root / "manifest.csv"
