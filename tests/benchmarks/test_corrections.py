"""The table of the benchmark of corrections, from evaluations that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atr_moco_plugin.evaluation.rescoring import INDUCTIVE, TRANSDUCTIVE
from benchmarks.corrections import evaluate, table


def _figures(gain: float) -> dict[str, Any]:
    hubs = {way: {"skewness": 1.25} for way in ("a2t", "t2a")}
    names = [*INDUCTIVE, *TRANSDUCTIVE]
    gains = {f"{way}_{x}": [gain, gain - 1, gain + 1] for way in hubs for x in ("r1", "map10")}
    recalls = {f"{way}_r1": 50.0 + gain for way in hubs}
    return {
        "dual": {f"{way}_r1": 50.0 for way in hubs},
        "hubness": hubs,
        "corrections": {
            "inductive": dict.fromkeys(INDUCTIVE, recalls),
            "transductive": dict.fromkeys(TRANSDUCTIVE, recalls),
            "hubness": dict.fromkeys(names, hubs),
            "gains": dict.fromkeys(names, gains),
        },
    }


def test_one_run_has_intervals_and_several_have_a_spread() -> None:
    one = table("toy", "inductive", [_figures(2.0)])
    assert one.rows[0][:2] == ["none", "50.0"]
    assert one.rows[1][:5] == ["NNN", "52.0", *["+2.0 (+1.0 to +3.0)"] * 2, "1.25"]
    two = table("toy", "inductive", [_figures(2.0), _figures(3.0)])
    assert two.rows[1][1:3] == ["52.5", "+2.5 ± 0.7"]


def test_transductive_corrections_stand_alone() -> None:
    rows = table("toy", "transductive", [_figures(2.0)]).rows
    assert [row[0] for row in rows] == ["Sinkhorn", "dual softmax", "CSLS, test queries"]


def test_an_evaluation_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = _figures(1.0)
    (tmp_path / "retrieval.json").write_text(json.dumps({"splits": {"test": made}}))
    assert evaluate(tmp_path, tmp_path / "no run", "test") == made
