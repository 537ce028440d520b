"""Any folder of sounds: which captions it has, which splits, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.folder import FolderConfig, FolderDataset, open_folder
from atr_moco_plugin.errors import InputError, MissingFileError

Write = Callable[..., Path]


def opened(root: Path, **options: object) -> FolderDataset:
    return open_folder(FolderConfig(root=root, **options))  # type: ignore[arg-type]


def captions(data: FolderDataset) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.captions for clips in data.splits.values() for clip in clips}


def sizes(data: FolderDataset) -> dict[str, int]:
    return {split: len(clips) for split, clips in data.splits.items()}


@pytest.fixture
def classes(tmp_path: Path, write_audio: Write) -> Path:
    """Two classes of ten."""
    for folder in ("dog_bark", "101 - Rain"):
        for number in range(10):
            write_audio(tmp_path / folder / f"{number:03}.wav")
    return tmp_path


def test_sub_folders_are_captions(classes: Path) -> None:
    data = opened(classes)
    assert captions(data)["dog_bark/003.wav"] == ("dog bark",)
    assert captions(data)["101 - Rain/003.wav"] == ("rain",)
    assert sizes(data) == {"train": 12, "valid": 4, "test": 4} and data.relevance_mode == "label"
    for clips in data.splits.values():
        assert {clip.label for clip in clips} == {"dog bark", "rain"}
        assert len({clip.caption_ids for clip in clips}) == 2
    assert data.retrieval_set("valid").relevance.sum() == 4
    assert data.read_with(AudioReader(16_000)).load(data.clips("test")[0]).shape == (4800,)
    assert data.seconds == pytest.approx(6.0)
    shown = " ".join(data.notes)
    assert "dog_bark/000.wav -> 'dog bark'" in shown and "drawn by recording" in shown


def test_sounds_that_a_table_does_not_list_are_told(classes: Path) -> None:
    names = [f"dog_bark/{number:03}.wav" for number in range(10)]
    lines = [f"{name},dog number {number}" for number, name in enumerate(names)]
    (classes / "metadata.csv").write_text("\n".join(["file_name,caption", *lines]))
    said = "10 of the 20 sounds below .* are in no row of metadata.csv .* 101 - Rain/000.wav"
    assert re.search(said, " ".join(opened(classes).notes))
    assert re.search(said, " ".join(opened(classes / "metadata.csv").notes))
    (classes / "metadata.csv").write_text("\n".join(["file_name,caption", *lines[:2]]))
    with pytest.raises(InputError, match="has 2 sounds that can be used.*18 of the 20 sounds"):
        opened(classes)


def test_a_text_of_captions_is_said_not_to_be_read(classes: Path) -> None:
    (classes / "captions.txt").write_text("a dog barks")
    assert "captions.txt is not read: tables are .csv" in " ".join(opened(classes).notes)


@pytest.mark.parametrize("name", ["captions.xlsx", "train/Texts.XLS", "list.ods"])
def test_a_spreadsheet_is_said_not_to_be_read(classes: Path, name: str) -> None:
    (classes / "train").mkdir()
    (classes / name).write_bytes(b"PK")
    (classes / f"~${Path(name).name}").write_bytes(b"PK")  # it is open in Excel
    said = rf"(^|\. ){name} is not read: tables are \.csv, .*; save it as CSV, with the columns"
    assert re.search(said, " ".join(opened(classes).notes))
    assert "not read" not in " ".join(opened(classes, captions="folders").notes)


def test_texts_called_like_the_sounds_are_said_not_to_be_read(classes: Path) -> None:
    for number in range(7):
        (classes / "dog_bark" / f"{number:03}.txt").write_text("a dog barks")
    (classes / "dog_bark" / "licence.txt").write_text("CC0")
    said = "7 texts are called like sounds and are not read (dog_bark/000.txt beside dog_bark/000."
    assert said in " ".join(opened(classes).notes)


def test_texts_are_named_where_the_names_of_the_sounds_have_no_word(
    tmp_path: Path, write_audio: Write
) -> None:
    for number in range(12):
        write_audio(tmp_path / f"{number:04}.wav").with_suffix(".txt").write_text("a dog barks")
    with pytest.raises(InputError, match=r"no name has a word.*12 texts are called like sounds"):
        opened(tmp_path)


def test_a_sound_without_a_caption_is_named(classes: Path) -> None:
    names = [f"dog_bark/{number:03}.wav" for number in range(10)]
    lines = [f"{name},{'dog ' * (number > 0)}{number}" for number, name in enumerate(names)]
    lines.append("101 - Rain/000.wav,")
    (classes / "metadata.csv").write_text("\n".join(["file_name,caption", *lines]))
    with pytest.warns(UserWarning, match=r"without a caption: '101 - Rain/000.wav'; left out"):
        opened(classes)


def test_the_same_splits_wherever_the_folder_lies(classes: Path, tmp_path: Path) -> None:
    one = opened(classes).fingerprint()
    moved = classes.rename(tmp_path.with_name(tmp_path.name + "_moved"))
    assert opened(moved).fingerprint() == one
    assert opened(moved, seed=1).fingerprint() != one


def test_folders_of_splits_and_folders_that_say_nothing(tmp_path: Path, write_audio: Write) -> None:
    for split in ("train", "val"):
        for folder in ("dog", "rain"):
            for number in range(10):
                write_audio(tmp_path / "data" / split / "wav" / folder / f"{number}.wav")
    data = opened(tmp_path)
    assert sizes(data) == {"train": 20, "valid": 20}
    assert captions(data)["data/val/wav/dog/3.wav"] == ("dog",)
    assert not any("drawn" in note for note in data.notes)


def test_phrases_of_classes(classes: Path) -> None:
    text = '{"dog_bark": ["a dog barks", "barking"], "101 - Rain": ["rain falls"]}'
    (classes / "class_phrases.json").write_text(text)
    data = opened(classes)
    assert captions(data)["dog_bark/003.wav"] == ("a dog barks", "barking")
    assert len({item for clip in data.clips("train") for item in clip.caption_ids}) == 2


def test_phrases_of_folders_of_the_same_words_that_differ_are_refused(
    classes: Path, write_audio: Write
) -> None:
    write_audio(classes / "Dog-Bark" / "050.wav")
    phrases = {"dog_bark": ["a dog"], "101 - Rain": ["rain falls"], "Dog-Bark": ["a puppy"]}
    (classes / "class_phrases.json").write_text(json.dumps(phrases))
    with pytest.raises(InputError, match="'Dog-Bark' and 'dog_bark' are one by their words"):
        opened(classes)


def test_names_of_files_are_captions(tmp_path: Path, write_audio: Write) -> None:
    for number in range(6):
        write_audio(tmp_path / f"dog_barking_{number}.wav")
        write_audio(tmp_path / f"{number:02} heavy rain.wav")
    write_audio(tmp_path / "077.wav")
    data = opened(tmp_path)
    assert captions(data)["dog_barking_3.wav"] == ("dog barking",)
    assert len(captions(data)) == 12 and data.counts["train"].no_caption == 1
    # A caption of many clips is relevant to all of them.
    assert data.relevance_mode == "label"
    assert all({"dog barking", "heavy rain"} == {c.label for c in x} for x in data.splits.values())


def test_a_table_comes_first(classes: Path, write_table: Write) -> None:
    rows = [(f"dog_bark/{n:03}.wav", f"dog number {n} barks") for n in range(10)]
    write_table(classes / "captions.csv", ("file_name", "caption"), rows)
    data = opened(classes)
    assert captions(data)["dog_bark/003.wav"] == ("dog number 3 barks",)
    assert len(captions(data)) == 10 and data.relevance_mode == "clip"
    assert "column caption of captions.csv" in data.notes[0]
    by_folder = opened(classes, captions="folders")
    assert len(captions(by_folder)) == 20
    assert captions(opened(classes / "captions.csv")) == captions(data)


def test_labels_stand_in_for_captions_and_files_are_found_by_name(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    rows = []
    for n in range(20):
        write_audio(tmp_path / "audio" / f"{n}.wav")
        rows.append((f"{n}.wav", "dog_bark" if n % 2 else "rain", f"r{n // 4}"))
    write_table(tmp_path / "meta.csv", ("filename", "category", "src_file"), rows)
    data = opened(tmp_path)
    assert captions(data)["3.wav"] == ("dog bark",) and data.relevance_mode == "label"
    split_of = {clip.key: split for split, clips in data.splits.items() for clip in clips}
    assert all(len({split_of[f"{n + i}.wav"] for i in range(4)}) == 1 for n in range(0, 20, 4))
    assert any("src_file r" in note for note in data.notes)


def test_a_table_a_split(tmp_path: Path, write_audio: Write, write_table: Write) -> None:
    for split, name in (("train", "train.csv"), ("test", "test/metadata.csv")):
        for n in range(10):
            write_audio(tmp_path / split / f"{n}.wav")
        rows = [(f"{n}.wav", f"{split} sound {n}") for n in range(10)]
        if split == "train":
            rows = [(f"train/{file}", text) for file, text in rows]
        write_table(tmp_path / name, ("file_name", "caption"), rows)
    # Tables in sub-folders count where the folder itself has none.
    assert set(captions(opened(tmp_path))) == {f"train/{n}.wav" for n in range(10)}
    (tmp_path / "train.csv").rename(tmp_path / "train" / "metadata.csv")
    rows = (tmp_path / "train" / "metadata.csv").read_text().replace("train/", "")
    (tmp_path / "train" / "metadata.csv").write_text(rows)
    data = opened(tmp_path)
    assert sizes(data) == {"train": 10, "test": 10}
    assert captions(data)["test/3.wav"] == ("test sound 3",)


def test_equal_files_are_in_one_split(classes: Path) -> None:
    for number in range(10, 20):
        copy = classes / "dog_bark" / f"{number:03}.wav"
        copy.write_bytes((classes / "dog_bark" / f"{number - 10:03}.wav").read_bytes())
    with pytest.warns(UserWarning, match="same audio as another of their split"):
        data = opened(classes)
    split_of = {clip.key: split for split, clips in data.splits.items() for clip in clips}
    assert all(
        split_of[f"dog_bark/{n:03}.wav"] == split_of[f"dog_bark/{n + 10:03}.wav"] for n in range(10)
    )


def test_broken_files_are_counted(classes: Path) -> None:
    (classes / "dog_bark" / "003.wav").write_bytes(b"no sound")
    with pytest.warns(UserWarning, match=r"left out: .*003\.wav"):
        data = opened(classes)
    assert len(captions(data)) == 19 and sum(x.unreadable for x in data.counts.values()) == 1
    with pytest.raises(InputError, match=r"003\.wav"):
        opened(classes, strict=True)


def test_what_cannot_be_read_is_counted_in_the_split_that_it_was_drawn_into(
    classes: Path, write_table: Write
) -> None:
    split_of = {clip.key: split for split, its in opened(classes).splits.items() for clip in its}
    one = {split: key for key, split in split_of.items()}
    for split in ("valid", "test"):
        (classes / one[split]).write_bytes(split.encode())
    with pytest.warns(UserWarning, match="left out"):
        data = opened(classes)
    assert {split: x.unreadable for split, x in data.counts.items()} == {
        "train": 0,
        "valid": 1,
        "test": 1,
    }
    assert "valid 3 clips x 1 captions (0.9 s, 1 unreadable)" in data.summary()
    rows = [(key, key.split("/")[0]) for key in split_of] + [("gone.wav", "rain")]
    write_table(classes / "metadata.csv", ("file_name", "caption"), rows)
    with pytest.warns(UserWarning, match="left out|without audio"):
        data = opened(classes)
    assert data.missing == 1 and data.counts["train"].missing == 0
    assert re.search(
        r", 1 missing that were in no split yet, .*, 1 clips without audio", data.summary()
    )
    assert sum(x.unreadable for x in data.counts.values()) == 2


def test_three_clips_are_refused(tmp_path: Path, write_audio: Write) -> None:
    for name in ("dog", "rain", "siren"):
        write_audio(tmp_path / name / "1.wav")
    with pytest.raises(InputError, match="has 3 sounds that can be used, but at least 10"):
        opened(tmp_path)


def test_one_caption_for_all_is_refused(tmp_path: Path, write_audio: Write) -> None:
    for number in range(12):
        write_audio(tmp_path / f"dog_{number}.wav")
    with pytest.raises(InputError, match="all 12 sounds have one caption, 'dog'"):
        opened(tmp_path)


def test_names_without_a_word_are_refused(tmp_path: Path, write_audio: Write) -> None:
    for number in range(12):
        write_audio(tmp_path / "dog" / f"{number:03}.wav")
    # The one folder that all lie in does not tell them apart.
    with pytest.raises(InputError, match="no name has a word in it, such as dog/000.wav"):
        opened(tmp_path)


def test_sounds_beside_sub_folders_are_refused(classes: Path, write_audio: Write) -> None:
    write_audio(classes / "wind.wav")
    with pytest.raises(InputError, match=r"1 sounds are in no sub-folder \(wind.wav\) and 20"):
        opened(classes)
    with pytest.warns(UserWarning, match="in no folder of a class"):
        assert len(captions(opened(classes, captions="folders"))) == 20


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("sound", "caption"), "of which none has the files: call it one of file_name"),
        (("file_name", "said"), "of which none has the captions: call it one of caption"),
    ],
)
def test_a_table_that_lacks_a_column_is_refused(
    classes: Path, write_table: Write, columns: tuple[str, str], message: str
) -> None:
    write_table(classes / "list.csv", columns, [("a.wav", "a dog")])
    with pytest.raises(InputError, match=message):
        opened(classes)
    assert len(captions(opened(classes, captions="folders"))) == 20


def test_other_tables_are_said_not_to_be_read(classes: Path, write_table: Write) -> None:
    write_table(classes / "licences.csv", ("who", "what"), [("a", "b")])
    assert opened(classes).notes[0].startswith("licences.csv is not read")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one.csv", "two.csv"), "has 2 tables of sounds, one.csv, two.csv"),
        (("train_1.csv", "train_2.csv"), "has 2 tables of sounds.*, two of them of one split"),
    ],
)
def test_two_tables_are_refused(
    classes: Path, write_table: Write, names: tuple[str, str], message: str
) -> None:
    for name in names:
        write_table(classes / name, ("file_name", "caption"), [("dog_bark/001.wav", "a dog")])
    with pytest.raises(InputError, match=message):
        opened(classes)


def test_a_file_that_is_missing_is_not_another_of_its_name(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    rows = []
    for n in range(12):
        write_audio(tmp_path / "cats" / f"{n}.wav")
        rows.append((f"cats/{n}.wav", f"cat {n}"))
    write_audio(tmp_path / "other" / "rain.ogg.wav")
    rows += [("dogs/3.wav", "a dog barks"), ("5.wav", "a door"), ("dogs/20.wav", "a wolf")]
    write_audio(tmp_path / "birds" / "20.wav")  # in a folder of another name
    write_table(tmp_path / "table.csv", ("file_name", "caption"), rows)
    with pytest.warns(UserWarning, match="3 clips are without audio"):
        data = opened(tmp_path)
    assert captions(data) == {f"cats/{n}.wav": (f"cat {n}",) for n in range(12)}


@pytest.mark.parametrize("stray", [True, False])
def test_files_that_have_moved_are_found_by_name(
    tmp_path: Path, write_audio: Write, write_table: Write, stray: bool
) -> None:
    """A folder that all rows name says nothing of one of them; nor does that of a split."""
    rows = []
    for n in range(20):
        write_audio(tmp_path / ("train" if n % 2 else "test") / f"{n}.wav")
        rows.append((f"/home/old/clips/{n}.wav", f"sound {n}"))
    if stray:
        write_audio(tmp_path / "intro.wav")
    write_table(tmp_path / "table.csv", ("file_name", "caption"), rows)
    assert len(captions(opened(tmp_path))) == 20


def test_a_moved_file_that_rows_name_with_and_without_its_suffix_is_one(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    """Both rows were said to have no audio."""
    rows = []
    for n in range(20):
        write_audio(tmp_path / "audio" / f"sound-{n}.wav")
        rows += [(f"sound-{n}.wav", f"sound {n}"), (f"sound-{n}", f"a noise {n}")]
    write_table(tmp_path / "table.csv", ("file_name", "caption"), rows)
    found = captions(opened(tmp_path))
    assert len(found) == 20 and ("sound 3", "a noise 3") in found.values()
    rows.append(("sound-3.mp3", "a wolf"))  # another name, which may be another sound's
    write_table(tmp_path / "table.csv", ("file_name", "caption"), rows)
    with pytest.warns(UserWarning, match="clips are without audio.*'sound-3.mp3'"):
        assert len(captions(opened(tmp_path))) == 19


def test_one_file_in_the_folders_of_two_classes_is_refused(classes: Path) -> None:
    (classes / "dog_bark" / "020.wav").hardlink_to(classes / "101 - Rain" / "003.wav")
    with pytest.raises(
        InputError, match="003.wav and dog_bark/020.wav are one file in the folders"
    ):
        opened(classes)


def test_recordings_of_a_table_below(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    rows = []
    for n in range(20):
        write_audio(tmp_path / "train" / f"{n}.wav")
        rows.append((f"{n}.wav", f"sound {n}", f"c{n}", n // 4))
    columns = ("file_name", "caption", "clip_id", "recording")
    write_table(tmp_path / "train" / "metadata.csv", columns, rows)
    data = opened(tmp_path)
    split_of = {clip.key: split for split, clips in data.splits.items() for clip in clips}
    assert all(len({split_of[f"c{n + i}"] for i in range(4)}) == 1 for n in range(0, 20, 4))
    assert any("of which there are 5" in note for note in data.notes)


def test_ids_that_count_anew_in_each_split(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    for split in ("train", "test"):
        rows = [(n, f"{split}_{n}.wav", f"{split} sound {n}") for n in range(10)]
        for _, name, _ in rows:
            write_audio(tmp_path / name)
        write_table(tmp_path / f"{split}.csv", ("id", "file_name", "caption"), rows)
    data = opened(tmp_path)
    assert sizes(data) == {"train": 10, "test": 10}
    assert captions(data)["test_3.wav"] == ("test sound 3",)


def test_what_is_left_out_moves_no_other_clip(classes: Path) -> None:
    before = {clip.key: split for split, its in opened(classes).splits.items() for clip in its}
    (classes / "list.txt").write_text("dog_bark/003.wav\n")
    for gone in ("dog_bark/007.wav", "101 - Rain/002.wav"):
        (classes / gone).write_bytes(gone.encode())
    with pytest.warns(UserWarning, match="left out"):
        data = opened(classes, exclude=classes / "list.txt")
    after = {clip.key: split for split, its in data.splits.items() for clip in its}
    assert len(after) == 17 and after.items() <= before.items()


def test_no_split_is_drawn_where_those_of_a_table_are_lost(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    rows = [(f"{n}.wav", f"sound {n}", "train" if n < 12 else "test") for n in range(15)]
    for name, _, split in rows:
        if split == "train":
            write_audio(tmp_path / name)
    write_table(tmp_path / "table.csv", ("file_name", "caption", "split"), rows)
    with (
        pytest.warns(UserWarning, match="3 clips are without audio"),
        pytest.raises(InputError, match="has splits of its own.*nothing to evaluate on"),
    ):
        opened(tmp_path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no such folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="has no sounds: looked for .wav"):
        opened(tmp_path)
    with pytest.raises(MissingFileError, match="has no table of its sounds"):
        opened(tmp_path, captions="table")
    with pytest.raises(InputError, match="`valid_fraction` is 0.7"):
        FolderConfig(root=tmp_path, valid_fraction=0.7)


def test_shares_that_a_user_sets(classes: Path) -> None:
    assert sizes(opened(classes, valid_fraction=0.3, test_fraction=0)) == {"train": 14, "valid": 6}
    found = Counter(sizes(opened(classes, valid_fraction=0, test_fraction=0)))
    assert found == {"train": 20}


def test_a_table_that_is_not_read_is_named_where_the_folder_is_refused(
    tmp_path: Path, write_audio: Write
) -> None:
    for number in range(12):
        write_audio(tmp_path / f"Ton {number}.wav")
    (tmp_path / "Tabelle1.csv").write_bytes("Datei;Geräusch\r\nTon 1.wav;Hund\r\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"one caption.*Tabelle1.csv is not read: .* datei, ger"):
        opened(tmp_path)


def test_examples_are_from_the_whole_list_and_sounds_that_lie_deeper_are_named(
    classes: Path, write_audio: Write
) -> None:
    for number in range(20):
        write_audio(classes / f"class {chr(97 + number)}" / "1.wav")
    for number in range(2):
        write_audio(classes / "owl" / f"day {number}" / "1.wav")
    notes = " ".join(opened(classes).notes)
    assert "-> 'rain', class" in notes and "owl/day 1/1.wav -> 'day 1' and 19 more" in notes
    assert "lie deeper than others" in notes and "owl/day 1/1.wav -> 'day 1', 101" in notes


@pytest.mark.parametrize("option", [{"valid_fraction": 0.3}, {"test_fraction": 0.0}, {"seed": 3}])
def test_an_option_of_drawn_splits_is_refused_where_a_folder_has_its_own(
    tmp_path: Path, write_audio: Write, option: dict[str, float]
) -> None:
    for number in range(24):
        split = "train" if number < 16 else "test"
        write_audio(tmp_path / split / ("dog", "rain")[number % 2] / f"{number}.wav")
    assert sizes(opened(tmp_path, seed=0)) == {"train": 16, "test": 8}
    name, value = next(iter(option.items()))
    said = f"has splits of its own, and `{name}` is {value}: leave it out"
    with pytest.raises(InputError, match=said):
        opened(tmp_path, **option)
