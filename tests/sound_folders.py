"""Folders of sounds, for tests of what indexes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def write_sound(path: Path, number: int = 0, seconds: float = 0.5, rate: int = RATE) -> Path:
    """A tone in noise; another number is another sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 37 * (number % 100)) * time)
    soundfile.write(path, wave + rng.normal(0, 0.02, time.shape), rate)
    return path
