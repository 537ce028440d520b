"""A tiny model, and sounds in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_bundle import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", hop_seconds=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sounds, of which one is longer than a window, and a broken one."""
    folder = tmp_path / "sounds"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, seconds in (("a.wav", 0.5), ("b.flac", 2.3), ("sub/c.wav", 1.0)):
        soundfile.write(folder / name, rng.uniform(-0.5, 0.5, int(8000 * seconds)), 8000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder
