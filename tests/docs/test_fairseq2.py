"""All code of docs/fairseq2.md, as its reader runs it."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
from docs.pages import blocks, files

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.hosts.fairseq2.compat import V08

PAGE = "docs/fairseq2.md"
FILES = files(PAGE, "python", "yaml")
SHORT = ["regime.num_steps=8", "regime.publish_metrics_every_n_steps=4"]

pytestmark = pytest.mark.skipif(not V08, reason="the page is written for fairseq2 0.8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "today", raising=False)
    monkeypatch.setenv("FAIRSEQ2_EXTENSION_TRACE", "1")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, file: Path, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [file.name, *arguments])
    runpy.run_path(str(file), run_name="__main__")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_page_has_the_three_files() -> None:
    assert list(FILES) == ["today.py", "moco.py", "moco.yaml"]
    assert len(blocks(PAGE, "python", "yaml")) == len(FILES)


def test_the_recipe_before(page: Path, monkeypatch) -> None:
    run(monkeypatch, page / "today.py", str(page / "out"), "--no-rich", "--config", *SHORT)
    losses = [record["Loss"] for record in lines(page / "out" / "metrics" / "train.jsonl")]
    assert len(losses) == 2 and losses[1] < losses[0]


@pytest.mark.parametrize("file", ["moco.yaml", "short.yaml"])
def test_the_recipe_after(page: Path, monkeypatch, file: str) -> None:
    (page / "short.yaml").write_text("criterion: moco_atc_atm\n")
    arguments = [str(page / "out"), "--no-rich", "--config-file", str(page / file)]
    run(monkeypatch, page / "moco.py", *arguments, "--config", *SHORT)
    metrics = lines(page / "out" / "metrics" / "train.jsonl")
    # The matching loss waits longer than so short a run.
    assert {"ATC Loss", "Temperature", "Alpha"} <= set(metrics[-1])
    size = 32 if file == "moco.yaml" else 65_536
    assert metrics[-1]["Queue Size"] == size
    ranks = [record["sources"]["audio"]["rows"] for record in lines(page / "out" / "rank.jsonl")]
    assert ranks == ([32, 32] if file == "moco.yaml" else [32, 64])
