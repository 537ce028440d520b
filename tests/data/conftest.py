"""Writers of small data sets: generated audio and captions files."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

SECONDS = 0.3


def _write_audio(path: Path, seconds: float = SECONDS, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))  # two files are two recordings
    wave = rng.uniform(-0.1, 0.1, round(seconds * rate))
    soundfile.write(path, wave, rate)
    return path


def _write_table(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    encoding: str = "utf-8",
    delimiter: str = ",",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    return path


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of equal files are kept in no one's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write_audio() -> Callable[..., Path]:
    return _write_audio


@pytest.fixture
def write_table() -> Callable[..., Path]:
    return _write_table
