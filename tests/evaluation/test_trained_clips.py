"""What a run keeps of the clips it was made with, and what an evaluation of it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.trained_clips import (
    TRAINED_CLIPS,
    check_held_out,
    keep_trained_clips,
)


def data(name: str = "folder", **splits: str) -> AudioTextDataset:
    """A clip for each letter of a split."""
    clips = {
        split: [Clip(f"{key}.wav", (f"sound {key}",), f"/{key}.wav") for key in keys]
        for split, keys in splits.items()
    }
    return AudioTextDataset(name, clips)


BEFORE = data(train="abcdef", valid="gh", test="ij")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    keep_trained_clips(tmp_path, BEFORE, "train", "valid", goes_on=False)
    return tmp_path


def found(run: Path, now: AudioTextDataset, split: str, allow: bool = False) -> list[str]:
    said: list[str] = []
    check_held_out(run, now, split, allow=allow, warn=said.append)
    return said


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_splits_of_the_run_are_evaluated_without_a_word(run: Path, split: str) -> None:
    assert found(run, BEFORE, split) == []


def test_clips_that_were_trained_on_are_refused(run: Path) -> None:
    moved = data(train="cdefgh", valid="abi", test="j")
    expected = r"2 of 3 clips of 'valid' \(a\.wav, b\.wav\) are .* was trained on"
    with pytest.raises(InputError, match=expected):
        found(run, moved, "valid")
    (note,) = found(run, moved, "valid", allow=True)
    assert "2 of 3 clips" in note and "allow_trained" in note
    assert found(run, moved, "test") == []


def test_clips_that_chose_the_checkpoint_are_warned_of(run: Path) -> None:
    (note,) = found(run, data(train="abcdef", valid="i", test="gj"), "test")
    assert "1 of 2 clips of 'test'" in note and "g.wav" in note and "chose its checkpoint" in note


@pytest.mark.parametrize(
    ("split", "said"),
    [("train", "1 of 6 clips of 'train'"), ("valid", "1 of 2 clips of 'valid'")],
)
def test_a_split_of_the_run_that_has_other_clips_is_warned_of(
    run: Path, split: str, said: str
) -> None:
    (note,) = found(run, data(train="abcdex", valid="gy", test="ij"), split)
    assert said in note and "other" in note


def test_other_data_are_no_mistake(run: Path) -> None:
    assert found(run, data("clotho", train="xyz", test="abc"), "test") == []


def test_the_same_data_set_in_which_nothing_is_known_is_told(run: Path) -> None:
    """The same sounds may be under other paths, such as those of another root."""
    (note,) = found(run, data(train="opq", test="xyz"), "test")
    assert "none of the clips" in note and "other paths" in note


def test_a_run_that_goes_on_keeps_what_it_has(run: Path) -> None:
    keep_trained_clips(run, data(train="abcdef", valid="i"), "train", "valid", goes_on=True)
    (note,) = found(run, data(train="abcdef", test="gh"), "test")
    assert "2 of 2 clips" in note
    keep_trained_clips(run, data(train="xyz", valid="i"), "train", "valid", goes_on=False)
    assert found(run, data(train="xyz", valid="i", test="gh"), "test") == []


def test_a_run_without_the_file_is_evaluated_with_a_note_on_other_data(tmp_path: Path) -> None:
    keep_trained_clips(tmp_path, BEFORE, "train", "valid", goes_on=True)
    assert not (tmp_path / TRAINED_CLIPS).exists()  # what it trained on before is not known
    assert found(tmp_path, BEFORE, "valid") == []
    said: list[str] = []
    check_held_out(tmp_path, BEFORE, "valid", warn=said.append, other_data=True)
    (note,) = said
    assert "other data" in note


def test_other_sounds_of_the_same_names_are_told_how_to_be_called(run: Path) -> None:
    other = data(train="xyz", test="abc")
    with pytest.raises(InputError, match=r"dataset\.config_overrides\.name=NAME.*allow_trained"):
        found(run, other, "test")
    assert found(run, data("others", train="xyz", test="abc"), "test") == []


@pytest.mark.parametrize("of", [".", "bundle", "checkpoint-2", "checkpoints/step_2/model/a/b/c.pt"])
def test_a_run_knows_the_clips_of_the_run_that_it_starts_from(run: Path, of: str) -> None:
    now = data(train="xyz", valid="i", test="aj")
    keep_trained_clips(run / "new", now, "train", "valid", goes_on=False, start=run / of)
    with pytest.raises(InputError, match=r"1 of 2 clips of 'test' \(a\.wav\)"):
        found(run / "new", now, "test")


def test_a_start_that_is_no_run_or_the_run_itself_adds_no_clips(run: Path) -> None:
    now = data(train="xyz", valid="i", test="aj")
    (run / "old").mkdir()
    (run / "old" / "config.yaml").touch()
    keep_trained_clips(run / "new", now, "train", "valid", goes_on=False, start=run / "old" / "x")
    assert found(run / "new", now, "test") == []
    keep_trained_clips(run, now, "train", "valid", goes_on=False, start=run / "start" / "model.pt")
    assert found(run, now, "test") == []


def test_a_damaged_file_is_one_sentence(run: Path) -> None:
    (run / TRAINED_CLIPS).write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be read"):
        found(run, BEFORE, "valid")


def test_held_out_clips_that_the_start_was_trained_on_are_warned_of(run: Path) -> None:
    now = data(train="ghij", valid="k", test="cdl")
    (run / "new").mkdir()
    with pytest.warns(UserWarning, match="2 of 3 clips of 'test' are among those .* was trained"):
        keep_trained_clips(
            run / "new", now, "train", "valid", goes_on=False, start=run, test_split="test"
        )
    with pytest.raises(InputError, match="or the one that it started from, was trained on"):
        found(run / "new", now, "test")
