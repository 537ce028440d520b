"""Every panel of values by step asks for what is written."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("matplotlib")

from atr_moco_plugin.evaluation import chance_metrics
from atr_moco_plugin.evaluation.relevance import RelevanceMatrix
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.report.curves import PANELS, curve_panels
from atr_moco_plugin.report.titles import MEASURES, figure_titles

OF_A_LOOP = {"Loss", "Gradient Norm", "Learning Rate"}
"""What fairseq2 writes itself, and the host for transformers under the same names."""


def test_every_key_is_one_that_is_written() -> None:
    written = {
        "training": {*OF_A_LOOP, *MEASURES.values()},
        "validation": set(figure_titles().values()),
    }
    chance = chance_metrics(RelevanceMatrix(torch.eye(12, dtype=torch.bool)))
    for group, keys in written.items():
        for words in PANELS[group]:
            assert set(words["lines"].values()) <= keys, words["title"]
            assert set(words.get("chance", {}).values()) <= set(chance), words["title"]
            assert set(words.get("chance", {})) <= set(words["lines"]), words["title"]
    record = RankLogger({"audio": torch.randn(9, 4)}).log(0)
    assert record is not None
    measured = record["sources"]["audio"]["raw"]
    assert {words["measure"] for words in PANELS["measures"]["panels"]} <= set(measured)


def test_what_a_loop_writes_itself_has_these_names() -> None:
    pytest.importorskip("transformers")
    from atr_moco_plugin.hosts.transformers.finetune import files

    assert set(files._OWN.values()) == OF_A_LOOP


def test_the_re_ranked_sum_is_drawn() -> None:
    titles = figure_titles()
    values = {"r_sum": 100.0, "reranked_r_sum": 200.0}
    records = [
        {"Step": step, **{titles[k]: v + step for k, v in values.items()}} for step in (1, 3)
    ]
    (panel,) = curve_panels("validation", records)
    assert "dual encoder 101 at step 1, 103 at step 3; re-ranked 201 at step 1" in panel.svg
