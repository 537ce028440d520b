"""A tiny model that fills indexes, and servers of PostgreSQL that keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_server import postgres_server, programs
from tiny_bundle import make_bundle

from atr_moco_plugin.retriever import AudioTextRetriever


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights; windows of a second, which overlap by half."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", hop_seconds=0.5)


@pytest.fixture(scope="session")
def tiny_retriever(tiny_bundle: Path) -> AudioTextRetriever:
    return AudioTextRetriever.from_pretrained(tiny_bundle, device="cpu")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[str], str]]:
    """Starts the PostgreSQL of a wheel once, and gives its address."""
    with ExitStack() as stack:
        addresses: dict[str, str] = {}

        def start(wheel: str) -> str:
            pytest.importorskip("psycopg")
            pytest.importorskip("pgvector")
            folder = programs(wheel)
            if folder is None:
                pytest.skip(f"{wheel}, which ships a PostgreSQL, is not installed")
            if wheel not in addresses:
                addresses[wheel] = stack.enter_context(postgres_server(folder))
            return addresses[wheel]

        yield start
