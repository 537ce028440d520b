"""How a run ends: which files of an earlier evaluation may stay."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.report import write_report
from atr_moco_plugin.report.ending import show_results


def end(out: Path, step: int, *, with_report: bool = True, failed: bool = False) -> None:
    """An evaluation of the checkpoint of a step."""
    clips = [Clip(f"clip{i}", (f"what {step} finds {i}",), object()) for i in range(3)]
    retrieval_set = AudioTextDataset("d", {"valid": clips}).retrieval_set("valid")
    similarity = torch.eye(3)
    dual = retrieval_metrics(similarity, torch.arange(3), caption_ids=torch.arange(3))
    figures: dict[str, Any] = {"clips": 3, "captions": 3, "test_set": "d valid", "dual": dual}
    shown = SimpleNamespace(
        result={} if failed else figures,
        similarity=similarity,
        split=SimpleNamespace(name="valid", retrieval_set=retrieval_set),
    )
    content = {"checkpoint": f"checkpoints/step_{step}", "splits": {"valid": figures}}
    if failed:
        content |= {"splits": {}, "failed": {"valid": "a clip is damaged"}}
    (out / "retrieval.json").write_text(json.dumps(content))
    show_results(
        {"valid": shown},  # type: ignore[dict-item]
        SimpleNamespace(load=lambda clip: np.zeros(800, "f4"), sample_rate=8_000),  # type: ignore[arg-type]
        out,
        examples_of="valid",
        with_report=with_report,
        warn=pytest.fail,
    )


def test_an_evaluation_without_examples_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    examples = tmp_path / "report" / "examples.json"
    for how in ({"with_report": False}, {"failed": True}):
        end(tmp_path, 100)
        assert json.loads(examples.read_text())["checkpoint"] == "checkpoints/step_100"
        assert "what 100 finds" in write_report(tmp_path).read_text()
        end(tmp_path, 200, **how)
        assert not examples.exists()
        assert "what 100 finds" not in write_report(tmp_path).read_text()


def test_examples_of_another_checkpoint_are_not_shown(tmp_path: Path) -> None:
    """As where a run is killed between its figures and its examples."""
    end(tmp_path, 100)
    file = tmp_path / "retrieval.json"
    file.write_text(file.read_text().replace("step_100", "step_200"))
    page = write_report(tmp_path).read_text()
    assert "what 100 finds" not in page
    assert "report/examples.json cannot be shown: it is of checkpoints/step_100, and the " in page
    # Those of an earlier version do not say of which checkpoint they are.
    examples = tmp_path / "report" / "examples.json"
    values = json.loads(examples.read_text())
    del values["checkpoint"]
    examples.write_text(json.dumps(values))
    assert "what 100 finds" in write_report(tmp_path).read_text()
