"""Figures of the drift of keys."""

from __future__ import annotations

import re

import torch

from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.report.drift import drift_panels


def records(steps: int, every: int = 10) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 4, 6, generator=generator)

    def probe() -> dict[str, torch.Tensor]:
        keys.add_(0.1 * torch.randn(2, 4, 6, generator=generator))
        return {"audio": keys[0].clone(), "text": keys[1].clone()}

    logger = RankLogger({"audio": torch.eye(3, 4)}, every=10, probe=probe, probe_every=every)
    return [x for step in range(steps) if (x := logger.log(step)) is not None]


def test_keys_by_age_and_by_step() -> None:
    found = records(81)
    by_age, by_step = drift_panels(found)
    same = found[-1]["drift"]["sources"]["text"]["same"]
    assert f"text {same['10']:.4g} at 10 steps; text {same['80']:.4g} at 80 steps" in by_age.svg
    assert (by_age.title, by_step.title) == ("Keys by their age", "Keys 10 steps old")
    assert f"audio {found[1]['drift']['sources']['audio']['same']['10']:.4g} at step 10" in (
        by_step.svg
    )


def test_ages_that_one_modality_lacks_are_on_the_axis() -> None:
    found = records(81)
    # Not finite where the audio was at its youngest, as after a step that went wrong.
    for record in found:
        record["drift"]["sources"]["audio"]["same"].pop("10", None)
        record["drift"]["sources"]["text"]["same"].pop("80", None)
    by_age, by_step = drift_panels(found)
    assert by_step.title == "Keys 10 steps old"
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", by_age.svg)
    assert [x for x in shown if x in ("10", "20", "40", "80")] == ["10", "20", "40", "80"]


def test_a_run_without_a_probe_or_with_one_look_has_no_figure() -> None:
    assert drift_panels(records(1)) == []
    assert drift_panels([{"step": 1, "sources": {}}, {"step": 2, "drift": None}]) == []
    broken = {"every": 10, "sources": {"audio": {"different": None, "same": {"10": None}}}}
    assert drift_panels([{"step": 3, "drift": broken}]) == []
