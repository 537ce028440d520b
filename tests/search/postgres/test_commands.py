"""The commands with an index in PostgreSQL; none of them prints its password."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import PASSWORD, QUOTED
from sound_folders import write_sound

from atr_moco_plugin.commands.main import main


def test_index_and_search(
    postgres: Callable[[str], str],
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = f"{postgres('pgserver')}?schema={tmp_path.name}"
    for number in range(4):
        write_sound(tmp_path / f"{number}.wav", number, seconds=2.0)
    fill = ["index", str(tmp_path), "--model", str(tiny_bundle), "--index", server]
    ask = ["search", "a dog barks", "--index", server, "-k", "3"]
    printed = ""

    def run(*arguments: str) -> tuple[int, str]:
        nonlocal printed
        status = main(arguments)
        said = capsys.readouterr()
        printed += said.out + said.err
        return status, said.out

    assert run(*ask)[0] == 2
    status, out = run(*fill)
    assert status == 0 and "4 new" in out
    assert "4 unchanged" in run(*fill)[1]
    hits = json.loads(run(*ask, "--json")[1])
    assert len(hits) == 3
    assert {hit["path"] for hit in hits} <= {str(tmp_path / f"{n}.wav") for n in range(4)}
    assert json.loads(run(*ask, "--json", "--exact")[1]) == hits
    assert run(*ask, "--rerank", "--path", "*/2.wav")[0] == 0
    assert run(*ask, "--model", str(tmp_path))[0] == 2
    assert run(*fill, "--engine", "faiss")[0] == 2
    assert PASSWORD not in printed and QUOTED not in printed and "s3cret" not in printed
