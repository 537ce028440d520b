"""The benchmark of the engines runs, and FAISS is asked in it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("faiss")
pytest.importorskip("psycopg")
from postgres_server import postgres_server, programs  # noqa: E402

from benchmarks import engines  # noqa: E402


def rows(printed: str) -> dict[tuple[str, str], float]:
    found = re.findall(r"^\| (.+?) \| (.+?) \| (\d\.\d+) \|", printed, re.M)
    return {(index, engine): float(recall) for index, engine, recall in found}


def test_the_table_of_a_small_index(capsys: pytest.CaptureFixture[str]) -> None:
    engines.main(["--windows=24000", "--dim=32", "--queries=20"])
    found = rows(capsys.readouterr().out)
    assert len(found) == 8
    for index, _ in found:
        assert found[index, "exact"] == 1.0
        assert 0.5 < found[index, "faiss"] < 1.0


def test_the_rows_of_postgres(capsys: pytest.CaptureFixture[str]) -> None:
    folder = programs("pgserver")
    if folder is None:
        pytest.skip("pgserver, which ships a PostgreSQL, is not installed")
    with postgres_server(folder) as address:
        engines.main(["--windows=2000", "--dim=8", "--queries=5", f"--postgres={address}"])
    printed = capsys.readouterr().out
    assert rows(printed)["as it was built", "PostgreSQL, exact"] == 1.0
    assert "PostgreSQL, vector: put" in printed and address not in printed
