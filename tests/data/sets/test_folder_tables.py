"""Tables of a folder of sounds: their splits, labels and recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from atr_moco_plugin.data.sets.folder import FolderConfig, FolderDataset, open_folder
from atr_moco_plugin.errors import InputError

Write = Callable[..., Path]
COUNT = 20


def opened(root: Path, **options: object) -> FolderDataset:
    return open_folder(FolderConfig(root=root, **options))  # type: ignore[arg-type]


def captions(data: FolderDataset) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.captions for clips in data.splits.values() for clip in clips}


@pytest.fixture
def build(tmp_path: Path, write_audio: Write, write_table: Write) -> Callable[..., Path]:
    """A folder of twenty sounds, with columns beside ``file_name`` in one table."""

    def build(name: str = "sounds.csv", **columns: Sequence[object]) -> Path:
        for n in range(COUNT):
            write_audio(tmp_path / f"{n}.wav")
        rows = [(f"{n}.wav", *(str(its[n]) for its in columns.values())) for n in range(COUNT)]
        write_table(tmp_path / name, ("file_name", *columns), rows)
        return tmp_path

    return build


TEXTS = [f"sound {n}" for n in range(COUNT)]
HALVES = ["train"] * 12 + ["test"] * 8


@pytest.mark.parametrize("column", ["split", "subset"])
def test_a_row_of_another_split_than_its_table_is_refused(
    tmp_path: Path, write_audio: Write, write_table: Write, column: str
) -> None:
    for split, least in (("train", 0), ("test", 12)):
        rows = []
        for n in range(least, least + 10):
            write_audio(tmp_path / f"{n}.wav")
            rows.append([f"{n}.wav", f"sound {n}", "holdout" if n == 3 else split])
        rows[-1][2] = {"test": "Train", "train": ""}[split]
        write_table(tmp_path / f"{split}.csv", ("file_name", "caption", column), rows)
    said = rf"test.csv: row 10 is of the split 'Train' by its column '{column}', and of 'test' by"
    with pytest.raises(InputError, match=said):
        opened(tmp_path)
    table = tmp_path / "test.csv"
    table.write_text(table.read_text().replace("Train", "evaluation"))
    with pytest.warns(UserWarning, match=r"splits 'holdout' \(1\) are neither trained"):
        sizes = {split: len(clips) for split, clips in opened(tmp_path).splits.items()}
    assert sizes == {"train": 9, "test": 10, "holdout": 1}


@pytest.mark.parametrize("name", ["training_data.csv", "my_eval_sounds.csv"])
def test_the_rows_of_a_lone_table_say_their_splits(build: Callable[..., Path], name: str) -> None:
    data = opened(build(name, caption=TEXTS, split=HALVES))
    assert {split: len(clips) for split, clips in data.splits.items()} == {"train": 12, "test": 8}


def test_recordings_of_a_column_in_two_splits_are_refused(build: Callable[..., Path]) -> None:
    recordings = ["a", *range(1, COUNT - 1), "a"]
    recordings[3] = recordings[4] = ""
    recordings[15] = ""
    root = build(caption=TEXTS, split=HALVES, recording=recordings)
    said = (
        r"1 recordings are in two splits: recording a \(0.wav in 'train', 19.wav in 'test'\); put "
        "all clips of each into one of them, name them apart if they are different"
    )
    with pytest.raises(InputError, match=said):
        opened(root)
    notes = opened(root, allow_shared_audio=True).notes
    assert "1 recordings are in two splits: recording a" in notes[-1]
    (root / "list.txt").write_text("0.wav\n")
    assert len(captions(opened(root, exclude=root / "list.txt"))) == COUNT - 1


def test_the_first_column_of_labels_with_letters_counts(build: Callable[..., Path]) -> None:
    names = ["dog_bark", "rain"]
    classes = [names[n % 2] for n in range(COUNT)]
    root = build(label=[n % 2 for n in range(COUNT)], class_name=classes)
    data = opened(root)
    assert captions(data)["0.wav"] == ("dog bark",) and data.relevance_mode == "label"
    assert data.notes[0].startswith("Captions are the column class_name of sounds.csv")


def test_a_label_without_letters_is_no_caption(build: Callable[..., Path]) -> None:
    labels = [["000 - Rain", "101 - Dog"][n % 2] for n in range(COUNT)]
    labels[5] = "-1"
    root = build(label=labels)
    with pytest.warns(UserWarning, match="1 clip is of split 'train' without a caption: '5.wav'"):
        assert set(captions(opened(root)).values()) == {("dog",), ("rain",)}


def test_labels_without_letters_are_refused(build: Callable[..., Path]) -> None:
    root = build(label=[n % 4 for n in range(COUNT)], category=["-"] * COUNT)
    said = "sounds.csv: no label has a letter in it, such as '0' in column 'label'"
    with pytest.raises(InputError, match=said):
        opened(root)


def test_each_label_of_a_list_is_a_caption(build: Callable[..., Path]) -> None:
    root = build(caption=TEXTS)
    (root / "sounds.csv").unlink()
    rows = [
        {"file_name": f"{n}.wav", "label": ["dog_bark", n, f"SoundOf{n}x"]} for n in range(COUNT)
    ]
    (root / "sounds.json").write_text(json.dumps(rows))
    assert captions(opened(root))["3.wav"] == ("dog bark", "sound of3x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text[:-5],
            "sounds.json: is not JSON .* or, if it is no table of sounds, take it out",
        ),
        (lambda text: text.replace('"caption"', '"caption": "x", "caption"', 1), "'caption' twice"),
        (lambda text: text.replace('"caption"', '"Caption": "x", "caption"', 1), "twice in other"),
        (lambda text: f'{{"rows": {text}}}', "sounds.json: has rows with captions under 'rows'"),
        (
            lambda text: text[1:-1].replace("}, {", "}\n{"),
            "sounds.json: has one JSON value after another, .*; call it sounds.jsonl, or, if it is",
        ),
    ],
)
def test_a_json_table_that_cannot_be_read_is_refused(
    tmp_path: Path, write_audio: Write, change: Callable[[str], str], said: str
) -> None:
    """The names of the sub-folders were trained on in place of its captions."""
    rows = [{"file_name": f"{c}/{n}.wav", "caption": f"{c} {n}"} for c in "ab" for n in range(10)]
    for row in rows:
        write_audio(tmp_path / row["file_name"])
    table = tmp_path / "sounds.json"
    table.write_text(change(json.dumps(rows)))
    with pytest.raises(InputError, match=said):
        opened(tmp_path)
    assert captions(opened(tmp_path, captions="folders"))["a/1.wav"] == ("a",)
    for other in ({"version": 2, "tags": ["a"]}, [1, 2], {"segments": [{"text": "hello"}]}):
        table.write_text(json.dumps(other))
        data = opened(tmp_path)
        assert captions(data)["a/1.wav"] == ("a",) and "sounds.json is not read" in data.notes[0]


OTHERS = {
    "tsconfig.json": '{ // comment\n "a": 1}',
    "empty.json": "",
    "lines.json": '{"a": 1}\n{"a": 2}\n',
    "twice.json": '{"lr": 1, "lr": 2}',
    "classes.json": '[{"className": "dog", "index": 0}]',
    "sizes.json": '[{"audioPath": "a/0.wav", "size": 3}]',
    "texts.json": '{"data": [{"rawText": "hello"}]}',
}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("other", [*OTHERS, "._sounds.json", "._sounds.csv"])
def test_other_json_beside_the_sounds_is_named_and_passed_over(
    tmp_path: Path, write_audio: Write, write_table: Write, other: str, listed: bool
) -> None:
    """A folder with a good table could not be opened."""
    names = [f"{c}/{n}.wav" for c in "ab" for n in range(10)]
    for name in names:
        write_audio(tmp_path / name)
    if listed:
        rows = [[name, f"sound {name}"] for name in names]
        write_table(tmp_path / "sounds.csv", ("file_name", "caption"), rows)
    (tmp_path / other).write_text(OTHERS.get(other, "\0\5\x16\7\0\2\0\0Mac OS X"))
    data = opened(tmp_path)
    assert captions(data)["a/1.wav"] == (("sound a/1.wav",) if listed else ("a",))
    assert (f"{other} is not read" in data.notes[0]) == (other in OTHERS)


@pytest.mark.parametrize("places", [("meta",), ("a", "b")])
def test_tables_of_sounds_in_sub_folders_are_refused(
    tmp_path: Path, write_audio: Write, write_table: Write, places: Sequence[str]
) -> None:
    """The names of the sub-folders were trained on in place of their captions."""
    for name in (f"{c}/{n}.wav" for c in "ab" for n in range(10)):
        write_audio(tmp_path / name)
    for place in places:
        (tmp_path / place).mkdir(exist_ok=True)
        rows = [(f"{n}.wav", f"sound {n}") for n in range(10)]
        write_table(tmp_path / place / "notes.csv", ("file_name", "caption"), rows)
    said = {
        1: "has a table of sounds in a sub-folder, meta/notes.csv: move it into the folder itself",
        2: "has 2 tables of sounds in sub-folders, a/notes.csv, b/notes.csv: write one in the",
    }[len(places)]
    for captions_of in ("auto", "table"):
        with pytest.raises(InputError, match=said):
            opened(tmp_path, captions=captions_of)
    assert captions(opened(tmp_path, captions="folders"))["a/1.wav"] == ("a",)


@pytest.mark.parametrize("places", [("data",), ("data/train", "data/test")])
def test_tables_of_a_folder_below_are_told_with_that_folder(
    tmp_path: Path, write_audio: Write, write_table: Write, places: Sequence[str]
) -> None:
    for place in places:
        rows = [(f"{n}.wav", f"sound {n}") for n in range(20)]
        for n in range(20):
            write_audio(tmp_path / place / f"{n}.wav")
        write_table(tmp_path / place / "metadata.csv", ("file_name", "caption"), rows)
    with pytest.raises(InputError, match=f"metadata.csv.*: set root to {tmp_path}/data, or set"):
        opened(tmp_path)
    assert len(captions(opened(tmp_path / "data"))) == 20 * len(places)


def test_other_tables_in_sub_folders_are_said_not_to_be_read(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    """Whatever they are, the sounds beside them can be used."""
    for name in (f"{c}/{n}.wav" for c in "ab" for n in range(10)):
        write_audio(tmp_path / name)
    write_table(tmp_path / "a" / "meta.csv", ("slice_file_name", "class"), [("1.wav", "dog")])
    (tmp_path / "a" / "bad.csv").write_bytes(b"\0\x81\x90")
    (tmp_path / "a" / "twice.tsv").write_text('start\tstart\n1\t"2\n')
    (tmp_path / "a" / "link.csv").symlink_to("nowhere.csv")
    (tmp_path / "b" / "one.json").write_text('{"file_name": "1.wav", "caption": "a dog"}')
    (tmp_path / "b" / "config.json").write_text('{"a": 1}')
    (tmp_path / "b" / "1.wav.json").write_text('{"file_name": "1.wav", "caption": "a dog"}')
    data = opened(tmp_path)
    assert captions(data)["a/1.wav"] == ("a",)
    below = next(x for x in data.notes if x.startswith("Below sub-folders"))
    assert "a/bad.csv, a/link.csv, a/meta.csv and 2 more are not read" in below
    assert any("1 texts are called like sounds and are not read (b/1.wav" in x for x in data.notes)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.csv", "My sounds\nfile_name,caption\n0.wav,a dog\n", "line 2 has the column names"),
        ("c.csv", "file_name,caption,caption\n0.wav,a dog,b\n", "has 2 columns 'caption'"),
        ("c.json", '{"rows": [{"file_name": "0.wav", "caption": "a dog"}]}', "under 'rows'"),
        ("c.json", '{"file_name": "0.wav", "caption": "x"}\n' * 2, "call it c.jsonl"),
    ],
)
def test_tables_in_sub_folders_that_cannot_be_read_are_refused(
    tmp_path: Path, write_audio: Write, name: str, text: str, said: str
) -> None:
    """The names of the sub-folders were trained on without a word."""
    for sound in (f"{c}/{n}.wav" for c in "ab" for n in range(10)):
        write_audio(tmp_path / sound)
    (tmp_path / "a" / name).write_text(text)
    with pytest.raises(InputError, match=rf"a/{name}: .*{said}.*, or set captions to folders"):
        opened(tmp_path)
    assert captions(opened(tmp_path, captions="folders"))["a/1.wav"] == ("a",)


def test_a_json_file_called_like_a_sound_is_said_not_to_be_read(
    tmp_path: Path, write_audio: Write
) -> None:
    for sound in (f"{c}/{n}.wav" for c in "ab" for n in range(10)):
        write_audio(tmp_path / sound)
    (tmp_path / "a" / "1.json").write_text('{"file_name": "1.wav", "caption": "a dog"}')
    data = opened(tmp_path)
    assert any("1 texts are called like sounds and are not read (a/1.json" in x for x in data.notes)


def test_captions_that_are_numbers(build: Callable[..., Path]) -> None:
    """They were trained on without a word."""
    root = build(caption=["2024-03-01", "17", *TEXTS[2:]])
    said = r"numbers or dates \(2 of 20\): '2024-03-01' \(.*sounds.csv: row 1\), '17'.*; take them"
    with pytest.warns(UserWarning, match=said):
        opened(root)
    root = build(caption=[f"{n}:30" for n in range(COUNT)])
    with pytest.raises(InputError, match=r"numbers or dates \(20 of 20\): .*; say in words"):
        opened(root)


def test_rows_under_another_key_beside_a_table_are_passed_over(
    build: Callable[..., Path],
) -> None:
    root = build(caption=TEXTS)
    said = {"text": "hello", "segments": [{"text": "hello", "path": "0.wav"}]}
    (root / "transcript.json").write_text(json.dumps(said))
    (root / "cut.json").write_text(json.dumps([said])[:-5])
    data = opened(root)
    assert captions(data)["3.wav"] == ("sound 3",)
    assert "cut.json is not read: is not JSON" in data.notes[0]
    assert "transcript.json is not read" in data.notes[1]


def rows_of(tmp_path: Path, write_audio: Write, recordings: dict[tuple[int, int], str]) -> Path:
    """A folder whose clips have two rows each, with what some rows say of their recordings."""
    lines = []
    for n in range(COUNT):
        write_audio(tmp_path / f"{n}.wav")
        for take in range(2):
            row = {"file_name": f"{n}.wav", "caption": f"sound {n} {take}", "split": HALVES[n]}
            if (n, take) in recordings:
                row["recording"] = recordings[n, take]
            lines.append(json.dumps(row))
    (tmp_path / "sounds.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_recording_may_stand_in_any_row_of_a_clip(tmp_path: Path, write_audio: Write) -> None:
    root = rows_of(tmp_path, write_audio, {(0, 1): "a", (19, 0): "a", (19, 1): "a"})
    said = r"recording a \(0.wav in 'train', 19.wav in 'test'\)"
    with pytest.raises(InputError, match=said):
        opened(root)
    table = root / "sounds.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        line.pop("split")
    table.write_text("\n".join(map(json.dumps, lines)))
    for seed in range(4):  # drawn splits
        splits = opened(root, seed=seed).splits.items()
        split_of = {clip.key: split for split, clips in splits for clip in clips}
        assert split_of["0.wav"] == split_of["19.wav"]


def test_two_recordings_of_one_clip_are_refused(tmp_path: Path, write_audio: Write) -> None:
    root = rows_of(tmp_path, write_audio, {(3, 0): "a", (3, 1): "b"})
    said = (
        r"sounds.jsonl: row 7 and .*sounds.jsonl: row 8 are of one clip, '3.wav', and have the "
        "recording 'a' and 'b'; keep one of them"
    )
    with pytest.raises(InputError, match=said):
        opened(root)
