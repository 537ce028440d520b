from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cache_parts import RATE, write_sounds

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.embedding_cache.options import CacheOptions


@pytest.fixture
def sounds(tmp_path: Path) -> Callable[..., AudioTextDataset]:
    """Opens a data set of small files, which it writes."""

    def make(count: int = 9) -> AudioTextDataset:
        clips = write_sounds(tmp_path / "sounds", count)
        return AudioTextDataset("d", {"train": clips}).read_with(AudioReader(RATE))

    return make


@pytest.fixture
def options(tmp_path: Path) -> CacheOptions:
    return CacheOptions(folder=tmp_path / "cache", crops=3, batch_size=4)
