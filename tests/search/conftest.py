"""A tiny model that fills indexes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sound_folders import write_tiny_bundle

from atr_moco_plugin.retriever import AudioTextRetriever


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights; windows of a second, which overlap by half."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def tiny_retriever(tiny_bundle: Path) -> AudioTextRetriever:
    return AudioTextRetriever.from_pretrained(tiny_bundle, device="cpu")
