"""A run that goes on drops what it records again."""

from __future__ import annotations

import json
from pathlib import Path

from atr_moco_plugin.io.step_records import drop_after


def test_records_after_the_step_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    whole = [json.dumps({"Step": step}) + "\n" for step in (1, 2, 3, 4)]
    file.write_text("".join(whole) + '{"Step": 5, "Lo')
    drop_after(file, 4)
    assert file.read_text() == "".join(whole)
    drop_after(file, 2)
    assert file.read_text() == "".join(whole[:2])
    drop_after(file, 0)
    assert file.read_text() == ""


def test_records_of_rank_are_dropped_too_and_no_file_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "rank.jsonl"
    drop_after(file, 4)
    assert not file.exists()
    file.write_text('{"step": 50}\n{"step": 100}\n')
    drop_after(file, 50)
    assert file.read_text() == '{"step": 50}\n'
