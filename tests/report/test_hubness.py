"""The page of a run shows how unequally its items are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from atr_moco_plugin.report import write_report


def test_the_page_shows_hubness(tmp_path: Path) -> None:
    hub = {"skewness": 1.234, "never": 8.5, "largest": 10.0, "mean": 2.0}
    hub |= {"largest_name": "<b>a dog</b>"}
    result = {"clips": 9, "captions": 18, "hubness": {"k": 10, "a2t": hub, "t2a": hub}}
    (tmp_path / "config.yaml").write_text("common: {seed: 7}\n")
    (tmp_path / "retrieval.json").write_text(json.dumps({"splits": {"test": result}}))
    page = write_report(tmp_path).read_text()
    assert "test: how often an item is among the best 10" in page
    assert "<td>1.23</td>" in page
    assert "“&lt;b&gt;a dog&lt;/b&gt;”" in page
