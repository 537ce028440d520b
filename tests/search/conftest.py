"""A tiny model that fills indexes, servers of PostgreSQL that keep them, an index an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_server import WHEELS, postgres_server, programs
from tiny_bundle import make_bundle

from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.store import Store


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


@pytest.fixture(params=["exact", "faiss", *WHEELS])
def index(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, str | None]:
    """The address of an index that is not there yet, and its engine."""
    if request.param in WHEELS:
        return f"{postgres(request.param)}?schema={tmp_path.name}", None
    if request.param == "faiss":
        pytest.importorskip("faiss")
        from atr_moco_plugin.search.faiss import ivf, store

        # Its file is asked in an index of a few windows too, and all lists are looked into.
        monkeypatch.setattr(store, "LEAST", 8)
        monkeypatch.setattr(ivf, "PART", 1)
    return str(tmp_path / "index"), request.param


@pytest.fixture
def opened(index: tuple[str, str | None]) -> Callable[..., Store]:
    """Opens the index, again and again."""
    address, engine = index
    return lambda **options: open_index(address, engine=engine, **options)
