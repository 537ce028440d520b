"""Recordings and copies of them, as they are met in data sets."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest

Wave = NDArray[np.float32]


def recording(seed: int, seconds: float = 4.0, rate: int = 16_000) -> Wave:
    """Noise through resonances, whose level goes up and down: ``[n]``, peak 0.3."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    spectrum = np.fft.rfft(rng.normal(size=n))
    hertz = np.fft.rfftfreq(n, 1 / rate)
    tilt = sum(1 / (1 + ((hertz - f) / 150) ** 2) for f in rng.uniform(200, 5000, 6)) + 0.01
    wave = np.fft.irfft(spectrum * tilt, n)
    knots = rng.uniform(0.1, 1, round(4 * seconds) + 2)
    wave *= np.interp(np.arange(n) / rate * 4, np.arange(len(knots)), knots)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def resampled(wave: Wave, rate: int, new_rate: int) -> Wave:
    return np.asarray(soxr.resample(wave, rate, new_rate), np.float32)


def write(path: Path, wave: Wave, rate: int = 16_000, **options: Any) -> None:
    soundfile.write(path, wave, rate, **options)


def open_files(
    folder: Path, rows: Iterable[tuple[str, str, str]], name: str = "manifest", **options: Any
) -> AudioTextDataset:
    """Open a manifest of files in a folder; a row is a split, a file and a caption."""
    table = folder / f"{name}.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("split", "file_name", "caption"), *rows])
    options.setdefault("allow_shared_audio", True)
    return open_manifest(ManifestConfig(root=table, name=name, **options))
