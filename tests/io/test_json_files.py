"""What a crash left half-written is as if it was not there; what may not be read is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from atr_moco_plugin.io.json_files import object_if_whole


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "[" * 100_000, "\ufeff{}"])
def test_what_is_no_whole_object_is_empty(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    assert object_if_whole(file) == {}


def test_an_object_is_read_and_no_file_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert object_if_whole(file) == object_if_whole(file / "b.json") == {}
    file.write_text('{"ä": 1}', encoding="utf-8")
    assert object_if_whole(file) == {"ä": 1}
    assert object_if_whole(file / "b.json") == {}


def test_what_cannot_be_read_is_no_empty_object(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        object_if_whole(tmp_path)
