"""A disk without room is one sentence, whoever writes the file."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_bundle

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings


@pytest.fixture
def full() -> Iterator[None]:
    """No file may be longer than 4 kB, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_bundle(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    retriever = AudioTextRetriever.from_pretrained(make_bundle(tmp_path / "bundle"))
    request.getfixturevalue("full")
    with pytest.raises(InputError, match="cannot be written .*on a disk with room"):
        retriever.save_pretrained(tmp_path / "other")
    assert [x.name for x in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.npy"])
def test_embeddings(tmp_path: Path, full: None, name: str) -> None:
    vectors = np.zeros((1_000, 8), np.float32)
    names = [str(number) for number in range(1_000)]
    rows = {"audio": Rows(vectors, names, np.arange(1_000))}
    with pytest.raises(InputError, match="cannot be written .*on a disk with room"):
        write_embeddings(tmp_path / name, Embeddings(rows, {}))
    assert not list(tmp_path.iterdir())
