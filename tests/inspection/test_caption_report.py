from __future__ import annotations

import json
import sys

import pytest

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.inspection.caption_report import inspect_captions
from atr_moco_plugin.text.tokenizer import train_wordpiece

SPLITS = {
    "train": [Clip("a", ("A dog barks", "A dog"), None), Clip("b", ("A dog is barking",), None)],
    "test": [Clip("c", ("A dog", "A cat meows loudly"), None)],
}


def test_figures_of_each_split_are_ready_for_json() -> None:
    report = inspect_captions("d", SPLITS, train_wordpiece(["a dog barks"] * 3), 4)
    figures = json.loads(json.dumps(report.figures))
    train, test = figures["train"], figures["test"]
    assert (train["captions"], train["texts"], test["captions"]) == (3, 3, 2)
    assert train["words"] == [2, 3.0, 4]
    assert train["shared_in_the_split"] == 0
    assert train["found"]["shared caption"] == test["found"]["shared caption"] == 1
    assert train["found"]["near caption"] == 2
    assert test["found"]["unknown token"] == 1
    assert {x.kind for x in report.findings} >= {"shared caption", "near caption", "cut caption"}
    assert sum(report.unknown_words.values()) > 0
    assert len(report.words) == 5
    assert report.notes == () or "py3langid" in report.notes[0]


def test_what_was_not_looked_at_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    report = inspect_captions("d", SPLITS)
    assert report.figures["train"]["languages"] is None
    assert report.tokens is None
    assert report.unknown_words == {}
    assert ["py3langid" in report.notes[0], "tokenizer" in report.notes[1]] == [True, True]


def test_a_split_without_a_clip_has_no_words() -> None:
    report = inspect_captions("d", {**SPLITS, "valid": []})
    assert report.figures["valid"]["captions"] == 0
    assert report.figures["valid"]["words"] is None
