from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scene_folders import RATE, tone, write_classes, write_tone

from atr_moco_plugin.data.opening.unused_options import recorded_options
from atr_moco_plugin.data.sets.scene_recordings import (
    Recordings,
    RecordingsConfig,
    find_recordings,
)
from atr_moco_plugin.errors import InputError, MissingFileError


def found(root: Path, **options: object) -> Recordings:
    return find_recordings(root, "scenes", RecordingsConfig(**options))


def labels(recordings: Recordings) -> set[str | None]:
    return {clip.label for clips in recordings.splits.values() for clip in clips}


def keys(recordings: Recordings, split: str) -> set[str]:
    return {clip.key for clip in recordings.splits[split]}


def test_folders_are_classes_and_every_class_is_in_every_split(tmp_path: Path) -> None:
    recordings = found(write_classes(tmp_path, ["dog_bark", "101 - Rain"], each=10))
    assert labels(recordings) == {"dog bark", "rain"}
    sizes = {split: len(clips) for split, clips in recordings.splits.items()}
    assert sizes == {"train": 14, "valid": 2, "test": 4}
    for clips in recordings.splits.values():
        assert {clip.label for clip in clips} == {"dog bark", "rain"}
        assert all(clip.captions == (clip.label,) for clip in clips)
    again = found(tmp_path)
    assert again.splits == recordings.splits
    assert found(tmp_path, split_seed=1).splits != recordings.splits


def test_takes_of_one_recording_are_in_one_split(tmp_path: Path) -> None:
    for source in range(8):
        for take in "ABC":
            hertz = 200 + 50 * source + ord(take)
            write_tone(tmp_path / "dog" / f"1-{100 + source}-{take}-0.wav", hertz)
            write_tone(tmp_path / "cat" / f"1-{200 + source}-{take}-5.wav", 3 * hertz)
    recordings = found(tmp_path)
    sources = {s: {key.split("-")[1] for key in keys(recordings, s)} for s in recordings.splits}
    assert sum(map(len, sources.values())) == len(set.union(*sources.values())) == 16


def test_equal_files_are_in_one_split(tmp_path: Path) -> None:
    write_classes(tmp_path, each=8)
    for number in range(8):
        shutil.copy(tmp_path / "rain" / f"{number}.wav", tmp_path / "rain" / f"copy{number}.wav")
    with pytest.warns(UserWarning, match="8 clips have the same audio as another of their split"):
        recordings = found(tmp_path)
    for split in recordings.splits:
        rain = {key for key in keys(recordings, split) if key.startswith("rain/")}
        assert {key.replace("copy", "") for key in rain} <= rain


def test_folders_of_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for label in ("dog", "cat"):
            write_tone(
                tmp_path / split / label / "0.wav", 500 + 10 * number + len(label) * ord(label[0])
            )
    recordings = found(tmp_path)
    assert {s: keys(recordings, s) for s in recordings.splits} == {
        "train": {"train/dog/0.wav", "train/cat/0.wav"},
        "valid": {"val/dog/0.wav", "val/cat/0.wav"},
        "test": {"test/dog/0.wav", "test/cat/0.wav"},
    }
    shutil.copy(tmp_path / "train" / "dog" / "0.wav", tmp_path / "test" / "dog" / "1.wav")
    with pytest.raises(InputError, match="1 recordings are in two splits: .*allow_shared_audio"):
        found(tmp_path)


def test_phrases_of_a_folder(tmp_path: Path) -> None:
    write_classes(tmp_path, ["1", "2"], each=3)
    with pytest.raises(InputError, match="the folder '1' names a class and has no word .*rename"):
        found(tmp_path)
    table = tmp_path / "class_phrases.json"
    table.write_text(json.dumps({"1": ["a dog barks", "woofs"], "2": ["rain"]}))
    clips = {c.label: c.captions for c in found(tmp_path).splits["train"]}
    assert clips == {"1": ("a dog barks", "woofs"), "2": ("rain",)}
    table.write_text(json.dumps({"1": ["a dog barks"]}))
    with pytest.raises(InputError, match="no list of captions for class '2'"):
        found(tmp_path)


def test_folders_of_the_same_words_with_different_phrases_are_refused(tmp_path: Path) -> None:
    """The recordings of one got the phrases of the other."""
    write_classes(tmp_path, ["Dog_bark", "dog bark", "rain"], each=3)
    phrases = {"Dog_bark": ["a big dog barks"], "dog bark": ["a puppy yaps"], "rain": ["rain"]}
    table = tmp_path / "class_phrases.json"
    table.write_text(json.dumps(phrases))
    with pytest.raises(InputError, match="'Dog_bark' and 'dog bark' are one by their words and"):
        found(tmp_path)
    table.write_text(json.dumps(phrases | {"dog bark": ["a big dog barks"]}))
    clips = {c.label: c.captions for c in found(tmp_path).splits["train"]}
    assert clips == {"dog bark": ("a big dog barks",), "rain": ("rain",)}


def test_no_folder_of_recordings(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no such folder"):
        found(tmp_path / "nowhere")
    write_tone(tmp_path / "a.wav")
    with pytest.raises(MissingFileError, match="a folder for each class, .* found a.wav"):
        found(tmp_path)
    write_classes(tmp_path)
    with pytest.warns(
        UserWarning, match="1 of [0-9]+ recordings are in no folder of a class.* a.wav"
    ):
        assert len(labels(found(tmp_path))) == 3


def test_silent_short_and_broken_recordings_are_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_tone(tmp_path / "rain" / "silent.wav", level=0)
    write_tone(tmp_path / "rain" / "faint.wav", level=2e-4)
    write_tone(tmp_path / "rain" / "short.wav", seconds=0.1)
    (tmp_path / "rain" / "broken.wav").write_bytes(b"RIFF....")
    with pytest.warns(UserWarning, match="4 of 22 recordings cannot be used .*broken.wav"):
        recordings = found(tmp_path)
    assert sum(count.unreadable for count in recordings.counts.values()) == 4
    assert sum(map(len, recordings.splits.values())) == 18
    with pytest.raises(InputError, match="4 of 22 recordings cannot be used: .*take them out"):
        found(tmp_path, strict=True)
    assert sum(map(len, found(tmp_path, check_audio=False).splits.values())) == 22


def test_silence_alone_is_refused(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        for number in range(3):
            write_tone(tmp_path / label / f"{number}.wav", seconds=1 + number, level=0)
    with pytest.raises(InputError, match=r"6 of 6 recordings cannot be used: .*is silent"):
        found(tmp_path)


def test_a_list_leaves_recordings_out(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "sounds")
    listed = tmp_path / "out.txt"
    listed.write_text("rain/0.wav\nsiren/3.wav\n")
    recordings, whole = found(root, exclude=listed), found(root)
    gone = {"rain/0.wav", "siren/3.wav"}
    for split in whole.splits:
        assert keys(recordings, split) == keys(whole, split) - gone
    listed.write_text("rain/99.wav\n")
    with pytest.raises(InputError, match="leaves out 'rain/99.wav', which is no clip of scenes"):
        found(root, exclude=listed)


def test_a_share_of_esc50_for_test_is_refused(tmp_path: Path) -> None:
    write_tone(tmp_path / "audio" / "0.wav")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold,category,src_file\n")
    with pytest.raises(InputError, match="`test_fraction` is 0.5, but of ESC-50 .* leave .* out"):
        found(tmp_path, test_fraction=0.5)


def test_the_layout_of_esc50(tmp_path: Path) -> None:
    rows = ["filename,fold,category,src_file"]
    for fold in range(1, 6):
        for number, label in enumerate(("dog", "rain")):
            for source in range(3):
                name = f"{fold}-{fold}{number}{source}-A-{number}.wav"
                write_tone(tmp_path / "audio" / name, 300 + 50 * len(rows))
                rows.append(f"{name},{fold},{label},{fold}{number}{source}")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows))
    recordings = found(tmp_path, test_fold=2)
    assert {key[0] for key in keys(recordings, "test")} == {"2"}
    assert len(keys(recordings, "train")) + len(keys(recordings, "valid")) == 24
    assert "a dog is barking" in next(
        clip.captions for clip in recordings.splits["test"] if clip.label == "dog"
    )
    silent = next(iter(sorted(keys(recordings, "train"))))
    write_tone(tmp_path / "audio" / f"{silent}.wav", level=0)
    with pytest.warns(UserWarning, match=r"1 of 30 recordings cannot be used .*\(is silent\)"):
        left = found(tmp_path, test_fold=2)
    assert keys(left, "train") == keys(recordings, "train") - {silent}
    assert left.counts["train"].unreadable == 1


@pytest.mark.parametrize(
    "option", [{"test_fraction": 0.3}, {"valid_fraction": 0.0}, {"split_seed": 3}]
)
def test_an_option_of_drawn_splits_is_refused_beside_folders_of_splits(
    tmp_path: Path, option: dict[str, float]
) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for pitch, label in enumerate(("dog", "cat")):
            write_tone(tmp_path / split / label / "0.wav", 500 + 10 * number + 200 * pitch)
    found(tmp_path, test_fraction=0.2, valid_fraction=0.1, split_seed=0)  # the defaults
    name, value = next(iter(option.items()))
    with pytest.raises(InputError, match=f"splits of its own, and `{name}` is {value}: leave it"):
        found(tmp_path, **option)


def test_a_fold_beside_folders_of_classes_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, each=3)
    found(tmp_path, test_fold=4)  # the default
    with pytest.raises(InputError, match="`test_fold` is 2, but .* no table of ESC-50 .* leave"):
        found(tmp_path, test_fold=2)


def test_scenes_are_not_told_of_an_option_that_they_lack(tmp_path: Path) -> None:
    rows = ["filename,fold,category,src_file,bench_split"]
    for number in range(6):
        name = f"1-{number}-A-{number % 2}.wav"
        write_tone(tmp_path / "audio" / name, 300 + 50 * number)
        split = "test" if number < 2 else "train"
        rows.append(f"{name},1,{('dog', 'rain')[number % 2]},{number},{split}")
    (tmp_path / "meta").mkdir()
    index = tmp_path / "meta" / "esc50.csv"
    index.write_text("\n".join(rows))
    with pytest.raises(InputError, match="leave `test_fold` out$"):
        found(tmp_path, test_fold=2)
    index.write_text("\n".join(rows).replace(",test", ",valid"))
    with pytest.raises(InputError, match="expected train or test: correct it$"):
        found(tmp_path)


def test_options_that_a_run_has_recorded_may_do_nothing(tmp_path: Path) -> None:
    """Whoever evaluates it did not give them."""
    write_classes(tmp_path, each=3)
    plain = found(tmp_path)
    with recorded_options(["test_fold"]):
        assert found(tmp_path, test_fold=2) == plain
    with (
        recorded_options(["test_fraction"]),
        pytest.raises(InputError, match="`test_fold` is 2"),
    ):
        found(tmp_path, test_fold=2)


def test_channels_that_cancel_are_silent_since_their_average_is_heard(tmp_path: Path) -> None:
    write_classes(tmp_path)
    both = np.stack([tone(500, 1), -tone(500, 1)], axis=1)
    soundfile.write(tmp_path / "rain" / "inverted.wav", both, RATE)
    with pytest.warns(UserWarning, match=r"1 of 19 .* cannot be used .*inverted.wav \(is silent\)"):
        found(tmp_path)


def test_what_cannot_be_used_is_counted_in_the_split_that_its_folder_names(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for pitch, label in enumerate(("dog", "cat")):
            write_tone(tmp_path / split / label / "0.wav", 500 + 10 * number + 200 * pitch)
    for number in range(2):
        write_tone(tmp_path / "test" / "dog" / f"silent{number}.wav", 1, 1 + number, level=0)
    (tmp_path / "val" / "cat" / "broken.wav").write_bytes(b"RIFF....")
    with pytest.warns(UserWarning, match="3 of 9 recordings cannot be used"):
        recordings = found(tmp_path)
    counts = {split: count.unreadable for split, count in recordings.counts.items()}
    assert counts == {"train": 0, "valid": 1, "test": 2}
