"""Folders of short recordings, a folder a class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """A tone with a little noise, ``[n]`` float64."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.2 * np.sin(2 * np.pi * hertz * time)


def write_classes(
    root: Path, classes: Iterable[str] = ("dog bark", "rain", "siren"), each: int = 6
) -> Path:
    """``<class>/<number>.wav``: each class has its own pitch, each recording its own length."""
    for pitch, label in enumerate(classes, start=1):
        for number in range(each):
            write_tone(root / label / f"{number}.wav", 300 * pitch, 1 + 0.1 * number)
    return root


def write_tone(path: Path, hertz: float = 500, seconds: float = 1.0, level: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * tone(hertz, seconds), RATE)
    return path
