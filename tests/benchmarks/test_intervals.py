"""The benchmark of intervals: its truth is what it draws, and its table has what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from atr_moco_plugin.evaluation.metrics import query_metrics
from benchmarks import intervals
from benchmarks.intervals import Source


@pytest.mark.parametrize("r1", [0.05, 0.5, 0.9])
def test_test_sets_have_the_true_figures(r1: float) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = intervals.draw(Source(40_000, 3, 0.5, unequal=True), r1, 1, generator)
    found = query_metrics({way: queries.systems[way]["0"] for way in ("a2t", "t2a")})
    for name, true in intervals.truths(r1).items():
        scale, abs_ = (1, 1.1) if name == "medr" else (100, 0.9)
        for way in ("a2t", "t2a"):
            assert found[f"{way}_{name}"] == pytest.approx(scale * true, abs=abs_)
    sizes = torch.bincount(queries.cluster["t2a"])
    assert sizes.unique().tolist() == [1, 2, 3, 4, 5]


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "coverage.json"
    intervals.main(["--simulations=60", "--clips=50", f"--json={file}"])
    printed = capsys.readouterr().out
    assert "| 50 clips, 5 captions, alike 0.5 " in printed and "ms, intervals " in printed
    rows = json.loads(file.read_text())["coverage"]
    held = [x["held"] for x in rows if 0.1 < x["truth"] < 0.9]
    assert 92 < sum(held) / len(held) < 98
    # Captions of one clip taken for independent ones: far too sure.
    taken = [x["independent"] for x in rows if x["captions"] == 5 and x["independent"] is not None]
    assert sum(taken) / len(taken) < 90
