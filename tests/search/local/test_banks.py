"""What can be wrong with the bank of an index in a folder, and what one without it is like."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from indexes import INFO, QUERIES, answers, embedded, some_bank

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.local import create_local, open_local


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with create_local(tmp_path / "index", INFO) as store:
        store.put([embedded(f"/{n}", 1 + n % 3) for n in range(6)])
        store.set_bank(some_bank(0))
    return tmp_path / "index"


def tell(index: Path, statement: str) -> None:
    """Change the file as nobody should."""
    connection = sqlite3.connect(index / "index.sqlite")
    with connection:
        connection.execute(statement)
        connection.execute("UPDATE state SET version = version + 1")
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE offsets SET offsets = substr(offsets, 2) WHERE id = 0",
        "UPDATE offsets SET offsets = zeroblob(400) WHERE id = 0",
        "UPDATE offsets SET offsets = x'0000c07f' WHERE id = 0",  # not a number
        "UPDATE offsets SET offsets = x'00000040' WHERE id = 0",  # 2
        "UPDATE offsets SET offsets = 'text' WHERE id = 0",
        "UPDATE offsets SET offsets = 7 WHERE id = 0",
    ],
)
def test_damaged_offsets(index: Path, statement: str) -> None:
    tell(index, statement)
    with open_local(index) as store:
        assert len(store.nearest(QUERIES, 4)[0]) == 4
        with pytest.raises(InputError, match=r"index.sqlite is damaged \(offsets of windows are n"):
            store.nearest(QUERIES, 4, alpha=0.5)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bank SET embeddings = substr(embeddings, 5)",
        "UPDATE bank SET embeddings = zeroblob(length(embeddings))",
        "UPDATE bank SET embeddings = 7",
    ],
)
def test_a_damaged_bank_is_told_before_anything_is_put(index: Path, statement: str) -> None:
    tell(index, statement)
    with pytest.raises(InputError, match=r"index.sqlite is damaged \(the bank .*\): make the ind"):
        open_local(index, write=True)
    with open_local(index) as store:  # a reader needs the offsets alone
        assert len(store.nearest(QUERIES, 4, alpha=0.5)[0]) == 4


def test_without_a_bank_the_file_has_the_tables_of_an_earlier_version(index: Path) -> None:
    def tables() -> set[str]:
        connection = sqlite3.connect(index / "index.sqlite")
        found = connection.execute("SELECT name FROM sqlite_master WHERE type <> 'index'")
        names = {row[0] for row in found}
        connection.close()
        return names

    assert tables() == {"state", "recordings", "bank", "offsets", "forget_offsets"}
    with open_local(index, write=True) as store:
        store.set_bank(None)
    assert tables() == {"state", "recordings"}


def test_an_earlier_version_that_removes_a_recording_removes_its_offsets(index: Path) -> None:
    tell(index, "DELETE FROM recordings WHERE path = CAST('/2' AS BLOB)")
    connection = sqlite3.connect(index / "index.sqlite")
    assert connection.execute("SELECT count(*) FROM offsets").fetchone() == (5,)
    connection.close()
    with open_local(index) as store:
        assert all(hit.recording.path != "/2" for hit in store.nearest(QUERIES, 9, alpha=1.0)[0])
        assert len(answers(store)) == 7
