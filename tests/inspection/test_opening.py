from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.inspection.opening import open_to_inspect


def test_broken_files_and_recordings_in_two_splits_are_let_in(manifest: Path) -> None:
    manifest.write_text(manifest.read_text() + "dog.wav,A dog,test\n")
    opened = open_to_inspect("manifest", {"root": str(manifest), "strict": True})
    keys = {split: [clip.key for clip in clips] for split, clips in opened.dataset.splits.items()}
    assert keys == {
        "train": ["dog.wav", "silent.wav", "loud.wav"],
        "valid": ["broken.wav"],
        "test": ["copy.wav", "test/dog.wav"],
    }
    assert opened.has_audio


def test_warnings_of_opening_are_notes(manifest: Path) -> None:
    (manifest.parent / "loud.wav").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_to_inspect("manifest", {"root": str(manifest)})
    assert any("1 clip is without audio" in note for note in opened.notes)
    assert opened.dataset.missing == 1


def test_captions_alone_are_opened_and_that_is_said(manifest: Path) -> None:
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    opened = open_to_inspect("manifest", {"root": str(manifest)})
    assert not opened.has_audio
    assert opened.dataset.missing == 5
    assert opened.notes[0].startswith("There is no audio, so the captions alone were looked at.")
    assert "names were tried" not in opened.notes[0]


def test_what_is_not_there_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="looked for train, val or test"):
        open_to_inspect("clotho", {"root": str(tmp_path)})
    with pytest.raises(MissingFileError, match="not an ESC-50 folder"):
        open_to_inspect("esc50", {"root": str(tmp_path)})
    with pytest.raises(InputError, match="Clotho needs its folder"):
        open_to_inspect("clotho", {})
