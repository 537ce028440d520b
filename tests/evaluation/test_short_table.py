"""The figures at a glance that end a training run."""

from __future__ import annotations

from atr_moco_plugin.evaluation.short_table import short_table

NAMES = ("r1", "r5", "r10", "medr", "map10")
FIGURES = {f"{way}_{name}": 12.34 for way in ("a2t", "t2a") for name in NAMES}
RESULT = {"test_set": "toy test", "clips": 1_045, "captions": 5_225, "dual": FIGURES}


def test_an_interval_stands_below_its_figures() -> None:
    ends = {name: [1_010.04, 1_020.0] for name in FIGURES if name != "a2t_medr"}
    intervals = {"level": 0.95, "replicates": 1_000, "clusters": 1_045, "dual": ends}
    text = short_table({**RESULT, "chance": FIGURES, "intervals": intervals})
    lines = text.splitlines()
    assert lines[0] == "Retrieval on toy test: 1,045 clips, 5,225 captions"
    assert [line.split()[0] for line in lines[4:10]] == [
        "audio",
        "95",
        "audio",
        "text",
        "95",
        "text",
    ]
    of = "1,010.0-1,020.0"
    assert lines[5].split()[2:] == [of, of, of, "-", of]
    assert lines[-1].startswith("95 % intervals: Wilson's with Student's t, ")
    assert "bootstrap over 1,045 clips with their captions" in lines[-1]
    assert max(map(len, lines)) <= 120


def test_without_intervals_there_are_figures_alone() -> None:
    text = short_table(RESULT)
    assert "%" not in text and text.count("12.3") == len(FIGURES)
