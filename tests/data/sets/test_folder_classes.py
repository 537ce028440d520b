"""Classes of a folder of sounds: when captions are classes, and what is said when they are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.data.sets.folder import FolderConfig, open_folder

Write = Callable[..., Path]


@pytest.fixture
def rows(tmp_path: Path, write_audio: Write) -> list[tuple[str, str, str]]:
    """Forty clips of four labels."""
    names = ["dog bark", "rain", "cat", "wind"]
    return [(write_audio(tmp_path / f"{n}.wav").name, names[n % 4], f"row {n}") for n in range(40)]


def test_clips_with_several_labels_are_told(
    tmp_path: Path, write_table: Write, rows: list[tuple[str, str, str]]
) -> None:
    more = [*rows, ("0.wav", "rain", ""), ("4.wav", "cat", ""), ("4.wav", "dog bark", "")]
    write_table(tmp_path / "meta.csv", ("file_name", "label", "note"), more)
    said = (
        r"2 of 40 clips have several labels or captions \(such as 0.wav: dog bark, rain\).*each "
        "clip is evaluated alone, and where splits are drawn, a class may be missing from one"
    )
    with pytest.warns(UserWarning, match=said) as seen:
        data = open_folder(FolderConfig(root=tmp_path))
    assert data.relevance_mode == "clip"
    assert len([x for x in seen if "several labels" in str(x.message)]) == 1


def test_a_label_that_a_clip_has_twice_is_one(
    tmp_path: Path, write_table: Write, rows: list[tuple[str, str, str]]
) -> None:
    more = [*rows, ("0.wav", "Dog bark", "again")]
    write_table(tmp_path / "meta.csv", ("file_name", "label", "note"), more)
    data = open_folder(FolderConfig(root=tmp_path))
    assert data.relevance_mode == "label"
    assert data.retrieval_set("train").relevance.shape[1] == 4


def test_several_captions_that_no_clips_share_are_nothing_to_tell(
    tmp_path: Path, write_table: Write, rows: list[tuple[str, str, str]]
) -> None:
    own = [(file, f"{label} {note}", f"{note} of {label}") for file, label, note in rows]
    write_table(tmp_path / "meta.csv", ("file_name", "caption_1", "caption_2"), own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_folder(FolderConfig(root=tmp_path)).relevance_mode == "clip"
