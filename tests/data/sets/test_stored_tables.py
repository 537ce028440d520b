"""Folders of Hugging Face's ``datasets``: their audio is read where it lies."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

if importlib.util.find_spec("datasets") is None:
    pytest.skip("datasets is not installed", allow_module_level=True)

import datasets

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import FileSlice
from atr_moco_plugin.data.sets.folder import FolderConfig, FolderDataset, open_folder
from atr_moco_plugin.data.summary import NO_SPLIT
from atr_moco_plugin.errors import InputError, MissingFileError

COUNT, RATE = 20, 16_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets.disable_progress_bars()


def waveform(number: int) -> Any:
    return np.random.default_rng(number).integers(-3000, 3000, 4000 + number) / 2**15


def audio(number: int) -> dict[str, Any]:
    file = io.BytesIO()
    soundfile.write(file, waveform(number), RATE, format="WAV")
    return {"bytes": file.getvalue(), "path": f"{number}.wav"}


def table(**columns: Any) -> Any:
    rows = {"audio": [audio(n) for n in range(COUNT)], **columns}
    return datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))


def opened(root: Path, **options: Any) -> FolderDataset:
    return open_folder(FolderConfig(root=root, **options))


def check_audio(data: FolderDataset) -> None:
    """Every clip's caption is the number of the waveform it reads."""
    data.read_with(AudioReader(RATE))
    for clips in data.splits.values():
        for clip in clips:
            number = int(clip.captions[0].split()[-1])
            assert isinstance(clip.source, FileSlice)
            assert clip.seconds == pytest.approx((4000 + number) / RATE, abs=1e-3)
            np.testing.assert_allclose(data.load(clip), waveform(number), atol=1e-6)


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    saved = table(text=[f"sound {n}" for n in range(COUNT)]).shuffle(seed=0)
    saved.save_to_disk(str(tmp_path / "data"), num_shards=3)
    data = opened(tmp_path / "data")
    assert sum(map(len, data.splits.values())) == COUNT and "valid" in data.splits
    assert "column text of a folder of datasets" in data.notes[0]
    check_audio(data)


def test_splits_of_its_own(tmp_path: Path) -> None:
    saved = table(caption=[f"sound {n}" for n in range(COUNT)])
    parts = {"train": range(12), "validation": range(12, 16), "test": range(16, COUNT)}
    splits = {name: saved.select(rows) for name, rows in parts.items()}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    data = opened(tmp_path / "data")
    assert {name: len(clips) for name, clips in data.splits.items()} == {
        "train": 12,
        "valid": 4,
        "test": 4,
    }
    check_audio(data)


def test_parquet_files(tmp_path: Path) -> None:
    saved = table(caption=[f"sound {n}" for n in range(COUNT)])
    (tmp_path / "data" / "data").mkdir(parents=True)
    saved.select(range(12)).to_parquet(tmp_path / "data" / "data" / "train-00000-of-00001.parquet")
    saved.select(range(12, COUNT)).to_parquet(tmp_path / "data" / "data" / "test-00000.parquet")
    data = opened(tmp_path / "data")
    assert {name: len(clips) for name, clips in data.splits.items()} == {"train": 12, "test": 8}
    check_audio(data)


def test_parquet_files_are_of_the_splits_in_their_names(tmp_path: Path) -> None:
    saved = table(caption=[f"sound {n}" for n in range(COUNT)])
    saved.select(range(12)).to_parquet(tmp_path / "esc_train.parquet")
    saved.select(range(12, COUNT)).to_parquet(tmp_path / "test_0.parquet")
    assert {name: len(clips) for name, clips in opened(tmp_path).splits.items()} == {
        "train": 12,
        "test": 8,
    }
    saved.select(range(2)).to_parquet(tmp_path / "more.parquet")
    with pytest.raises(InputError, match="more.parquet is called like no split"):
        opened(tmp_path)


def test_recordings_and_splits_in_columns(tmp_path: Path) -> None:
    texts = [f"sound {n}" for n in range(COUNT)]
    saved = table(caption=texts, src_file=[n // 4 for n in range(COUNT)])
    saved.save_to_disk(str(tmp_path / "data"))
    data = opened(tmp_path / "data")
    split_of = {clip.key: split for split, clips in data.splits.items() for clip in clips}
    assert all(len({split_of[f"train/{n + i}"] for i in range(4)}) == 1 for n in range(0, COUNT, 4))
    named = table(caption=texts, split=["test" if n % 2 else "train" for n in range(COUNT)])
    named.save_to_disk(str(tmp_path / "named"))
    data = opened(tmp_path / "named")
    assert {name: len(clips) for name, clips in data.splits.items()} == {"train": 10, "test": 10}
    check_audio(data)


def test_labels_are_captions(tmp_path: Path) -> None:
    saved = table(label=[n % 2 for n in range(COUNT)])
    saved = saved.cast_column("label", datasets.ClassLabel(names=["dog_bark", "rain"]))
    saved.save_to_disk(str(tmp_path / "data"))
    data = opened(tmp_path / "data")
    texts = {clip.captions[0] for clips in data.splits.values() for clip in clips}
    assert texts == {"dog bark", "rain"} and data.relevance_mode == "label"


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [audio(n) for n in range(COUNT)]
    rows[0] = None
    rows[1] = {"bytes": b"no sound", "path": "1.wav"}
    texts = [f"sound {n}" for n in range(COUNT)]
    texts[2] = "..."
    saved = datasets.Dataset.from_dict({"audio": rows, "caption": texts})
    saved.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "data"))
    with pytest.warns(UserWarning, match="train/1: .*left out|1 clips are not usable"):
        data = opened(tmp_path / "data")
    assert (data.missing, data.counts[NO_SPLIT].missing) == (1, 1)
    assert sum(counts.unreadable for counts in data.counts.values()) == 1
    assert data.counts["train"].no_caption == 1
    check_audio(data)
    with pytest.warns(UserWarning), pytest.raises(MissingFileError, match="3 clips have no audio"):
        opened(tmp_path / "data", strict=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"said": ["a"] * COUNT}, "has no column with captions"),
        ({"caption": ["a"] * COUNT, "more": "audio"}, "has 2 columns of audio, audio, more"),
    ],
)
def test_columns_that_are_missing_or_twice(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    more = {k: [audio(n) for n in range(COUNT)] if v == "audio" else v for k, v in columns.items()}
    saved = table(**more)
    if "more" in more:
        saved = saved.cast_column("more", datasets.Audio(decode=False))
    saved.save_to_disk(str(tmp_path / "data"))
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "data")


def test_the_package_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(caption=["a"] * COUNT).save_to_disk(str(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'atr-moco-plugin\[datasets\]'"):
        opened(tmp_path / "data")


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    table(caption=["a"] * COUNT).save_to_disk(str(tmp_path / "data"))
    (tmp_path / "data" / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a folder of `datasets`"):
        opened(tmp_path / "data")


TEXTS = [f"sound {n}" for n in range(COUNT)]


def test_unknown_splits_of_rows_are_their_own(tmp_path: Path) -> None:
    names = ["train"] * 10 + ["holdout"] * 5 + ["dev"] * 5
    table(caption=TEXTS, split=names).save_to_disk(str(tmp_path / "data"))
    said = r"data: rows of the splits 'holdout' \(5\), 'dev' \(5\) are neither trained on"
    with pytest.warns(UserWarning, match=said):
        data = opened(tmp_path / "data")
    assert {name: len(clips) for name, clips in data.splits.items()} == {
        "train": 10,
        "holdout": 5,
        "dev": 5,
    }


def test_two_splits_of_a_row_are_refused(tmp_path: Path) -> None:
    subsets = ["train"] * 18 + ["test"] * 2
    saved = table(caption=TEXTS, split=["train"] * 12 + ["test"] * 8, subset=subsets)
    saved.save_to_disk(str(tmp_path / "data"))
    said = "data: row 13 is of the split 'test' and of the subset 'train'; keep one"
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "data")
    named = saved.remove_columns("subset")
    parts = {"train": named.select(range(10)), "test": named.select(range(10, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "parts"))
    said = r"parts \(table test\): row 1 is of the split 'train' by its column 'split', and of 'te"
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "parts")
    named.to_parquet(tmp_path / "lone" / "valid-00000-of-00001.parquet")
    assert {x: len(y) for x, y in opened(tmp_path / "lone").splits.items()} == {
        "train": 12,
        "test": 8,
    }


def test_a_subset_that_is_no_split_leaves_the_table_in_its_own(tmp_path: Path) -> None:
    saved = table(caption=TEXTS, subset=["clotho"] * COUNT)
    parts = {"train": saved.select(range(12)), "test": saved.select(range(12, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "parts"))
    assert set(opened(tmp_path / "parts").splits) == {"train", "test"}
    saved.save_to_disk(str(tmp_path / "lone"))
    with (
        pytest.warns(UserWarning, match="rows of the splits 'clotho'"),
        pytest.raises(InputError, match=r"0 sounds to train on \(its splits are clotho 20\)"),
    ):
        opened(tmp_path / "lone")


def test_recordings_in_two_splits_are_refused(tmp_path: Path) -> None:
    splits = ["train"] * 12 + ["test"] * 8
    saved = table(caption=TEXTS, split=splits, recording=[n // 5 for n in range(COUNT)])
    saved.save_to_disk(str(tmp_path / "data"))
    said = r"1 recordings are in two splits: recording 2 \(train/10 in 'train', train/12 in 'test'"
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "data")
    data = opened(tmp_path / "data", allow_shared_audio=True)
    assert "recording 2" in data.notes[-1] and len(data.clips("test")) == 8


@pytest.mark.parametrize("several", [False, True])
def test_a_label_that_is_missing_is_no_caption(tmp_path: Path, several: bool) -> None:
    labels: list[Any] = [-1 if n == 5 else n % 2 for n in range(COUNT)]
    kind: Any = datasets.ClassLabel(names=["dog_bark", "rain"])
    if several:
        labels, kind = [[label] for label in labels], datasets.Sequence(kind)
    saved = table(label=labels).cast_column("label", kind)
    # A test split without labels, as many are published.
    hidden = saved.select([5])
    parts = {"train": saved.select(range(12)), "valid": saved.select(range(12, COUNT))}
    datasets.DatasetDict({**parts, "test": hidden}).save_to_disk(str(tmp_path / "data"))
    data = opened(tmp_path / "data")
    texts = {clip.captions for clips in data.splits.values() for clip in clips}
    assert texts == {("dog bark",), ("rain",)} and data.relevance_mode == "label"
    assert data.counts["train"].no_caption == 1 and set(data.splits) == {"train", "valid"}


def test_the_first_column_of_labels_with_letters_counts(tmp_path: Path) -> None:
    numbers = [n % 2 for n in range(COUNT)]
    saved = table(label=numbers, class_name=[["dog_bark", "rain"][n] for n in numbers])
    saved.save_to_disk(str(tmp_path / "data"))
    data = opened(tmp_path / "data")
    assert "column class_name of a folder of datasets" in data.notes[0]
    assert {clip.label for clip in data.clips("train")} == {"dog bark", "rain"}
    saved.remove_columns("class_name").save_to_disk(str(tmp_path / "numbers"))
    with pytest.raises(InputError, match="numbers: no label has a letter in it, such as 0 in col"):
        opened(tmp_path / "numbers")


@pytest.mark.parametrize("column", ["caption", "split", "recording"])
def test_columns_that_differ_in_capitals_are_refused(tmp_path: Path, column: str) -> None:
    saved = table(**{"caption": TEXTS, column: TEXTS, column.title(): TEXTS, "Audio": TEXTS})
    saved.save_to_disk(str(tmp_path / "data"))
    said = f"has the columns '{column}' and '{column.title()}', which differ in capitals alone"
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "data")
    saved.remove_columns(column.title()).save_to_disk(str(tmp_path / "mended"))
    if column == "caption":
        check_audio(opened(tmp_path / "mended"))


def test_relative_paths_are_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "data"
    elsewhere.mkdir()
    paths = [f"{n}.wav" if n % 2 else str(elsewhere / f"{n}.wav") for n in range(COUNT)]
    rows = {"audio": [{"bytes": None, "path": path} for path in paths], "caption": TEXTS}
    text = datasets.Value("string")
    kinds = {"audio": {"bytes": datasets.Value("binary"), "path": text}, "caption": text}
    saved = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    saved.save_to_disk(str(root))
    for n in range(COUNT):
        soundfile.write(elsewhere / f"{n}.wav", waveform(n), RATE)
    monkeypatch.chdir(elsewhere)
    assert opened(root).missing == COUNT // 2
    for n in range(COUNT):
        soundfile.write(root / f"{n}.wav", waveform(n), RATE)
    sources = {clip.captions[0]: clip.source for x in opened(root).splits.values() for clip in x}
    assert sources["sound 3"] == str(root / "3.wav") and sources["sound 4"] == paths[4]


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow"])
@pytest.mark.parametrize("several", [False, True])
def test_a_format_that_was_set_changes_nothing(tmp_path: Path, kind: str, several: bool) -> None:
    label = datasets.ClassLabel(names=["dog_bark", "rain"])
    saved = table(caption=TEXTS, recording=list(range(COUNT)), label=[n % 2 for n in range(COUNT)])
    saved = saved.cast_column("label", label)

    def clips(name: str, columns: list[str], kind: str | None) -> list[Any]:
        formatted = saved.select_columns(["audio", *columns]).with_format(kind)
        if several:
            parts = {"train": formatted.select(range(12)), "test": formatted.select(range(12, 20))}
            datasets.DatasetDict(parts).save_to_disk(str(tmp_path / name))
        else:
            formatted.save_to_disk(str(tmp_path / name))
        splits = opened(tmp_path / name).splits.items()
        return [(split, x.key, x.captions, x.label) for split, its in splits for x in its]

    for number, columns in enumerate((["caption", "recording"], ["label"])):
        plain, other = (clips(f"{number} {x}", columns, x) for x in (None, kind))
        assert plain == other and "tensor" not in str(other)


def test_rows_count_from_one_throughout_the_files_of_a_table(tmp_path: Path) -> None:
    rows = [{**audio(n), "path": None} for n in range(COUNT)]
    saved = datasets.Dataset.from_dict({"audio": rows, "caption": TEXTS})
    saved = saved.cast_column("audio", datasets.Audio(decode=False))
    saved.save_to_disk(str(tmp_path / "data"), num_shards=3)
    data = opened(tmp_path / "data")
    for clips in data.splits.values():
        for clip in clips:
            number = int(clip.captions[0].split()[-1])
            assert (clip.key, clip.source.name) == (f"train/{number}", f"row {number + 1}")


def captions(data: FolderDataset) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.captions for its in data.splits.values() for clip in its}


def test_rows_of_one_clip_id_are_one_clip(tmp_path: Path) -> None:
    """Each wording was a clip of its own, and a wrong answer of the others'."""
    rows = [(n, take) for take in range(2) for n in range(COUNT)]
    columns = {
        "audio": [audio(n) for n, _ in rows],
        "caption": [f"sound {n} {take}" for n, take in rows],
        "clipId": [None if n == 5 else f"c{n}" for n, _ in rows],
        "recording": [f"r{n}" if take else None for n, take in rows],
    }
    columns["caption"][COUNT + 3] = columns["caption"][3]
    columns["recording"][3] = "r3"
    columns["caption"][4] = "..."
    saved = datasets.Dataset.from_dict(columns)
    saved = saved.cast_column("audio", datasets.Audio(decode=False))
    saved.save_to_disk(str(tmp_path / "data"))
    with pytest.warns(UserWarning, match="1 clips have the same audio"):  # without a clip_id
        data = opened(tmp_path / "data")
    texts = captions(data)
    assert len(texts) == COUNT + 1 and texts["train/7"] == ("sound 7 0", "sound 7 1")
    assert texts["train/3"] == ("sound 3 0",) and data.counts["train"].repeated_rows == 1
    assert texts["train/4"] == ("sound 4 1",) and data.counts["train"].empty_captions == 1
    assert data.counts["train"].no_caption == 0
    columns["recording"][2] = "other"
    again = datasets.Dataset.from_dict(columns)
    again.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(
        InputError, match="row 3 and .*row 23 are .* 'train/2', .* recording 'other' and 'r2'"
    ):
        opened(tmp_path / "two")
    columns["recording"][2], columns["audio"][COUNT + 2] = None, audio(1)
    again = datasets.Dataset.from_dict(columns)
    again.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "bad"))
    with pytest.raises(InputError, match="bad: row 3 and .*bad: row 23 have the clip_id 'c2' and"):
        opened(tmp_path / "bad")


def test_rows_of_one_file_are_one_clip(tmp_path: Path) -> None:
    for n in range(COUNT):
        soundfile.write(tmp_path / f"{n}.wav", waveform(n), RATE)
    names = [f"{n}.wav" for n in range(COUNT)] + [f"./{n}.wav" for n in range(COUNT)]
    rows = {
        "audio": [{"bytes": None, "path": str(tmp_path / name)} for name in names],
        "caption": [f"sound {n}" for n in range(2 * COUNT)],
    }
    text = datasets.Value("string")
    kinds = {"audio": {"bytes": datasets.Value("binary"), "path": text}, "caption": text}
    saved = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    saved.save_to_disk(str(tmp_path / "data"))
    texts = captions(opened(tmp_path / "data"))
    assert texts["train/3"] == ("sound 3", "sound 23") and len(texts) == COUNT


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"start": 0.0, "end": 0.1}, "has 'start', 'end', which no part of a sound is taken from"),
        ({"startMs": 0}, "has 'startms', which no part of a sound is taken from"),
        ({"caption_text": "x"}, "has 'caption_text', which no caption is taken from"),
    ],
)
def test_columns_that_are_not_read_are_named(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    """They were ignored without a word."""
    more = {name: [value] * COUNT for name, value in columns.items()}
    table(text=TEXTS, **more).save_to_disk(str(tmp_path / "data"))
    with pytest.warns(UserWarning, match=said) as told:
        opened(tmp_path / "data")
    assert len(told) == 1


@pytest.mark.parametrize("words", [("balanced_train", "eval"), ("clotho", "clotho"), ("dev", "")])
def test_splits_of_other_names_in_a_named_table_are_of_that_table(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    """No sound was left to train on."""
    saved = table(caption=TEXTS, split=[words[0]] * 12 + [words[1]] * 8)
    parts = {"train": saved.select(range(12)), "test": saved.select(range(12, COUNT))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "parts"))
    data = opened(tmp_path / "parts")
    assert {x: len(y) for x, y in data.splits.items()} == {"train": 12, "test": 8}


def save(path: Path, **columns: Any) -> Path:
    saved = datasets.Dataset.from_dict(columns)
    saved.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(path))
    return path


def test_rows_of_a_clip_may_fill_different_columns_of_recordings(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "audio": [audio(0), *(audio(n) for n in range(COUNT))],
        "caption": ["another", *TEXTS],
        "clip_id": ["c0", *(f"c{n}" for n in range(COUNT))],
        "recording": [None, "r1", *(f"r{n}" for n in range(2, COUNT + 1))],
        "src_file": ["f.wav", "f.wav", *(f"s{n}" for n in range(1, COUNT))],
    }
    assert captions(opened(save(tmp_path / "data", **columns)))["train/0"] == ("another", "sound 0")
    columns["recording"][0], columns["src_file"][0] = "r1", "g.wav"
    said = "row 1 and .*row 2 are of one clip, 'train/0', and have the src_file 'g.wav' and 'f.wav'"
    with pytest.raises(InputError, match=said):
        opened(save(tmp_path / "bad", **columns))


@pytest.mark.parametrize("allow", [False, True])
def test_a_clip_id_in_two_splits_is_refused(tmp_path: Path, allow: bool) -> None:
    ids = ["a", *(f"c{n}" for n in range(COUNT - 2)), "a"]
    saved = table(caption=TEXTS, clip_id=ids, split=["train"] * 12 + ["test"] * 8)
    parts = {"train": saved.select(range(12)), "test": saved.select(range(12, COUNT))}
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    for name, last in (("one", COUNT), ("two", 8)):
        said = f"1 clip is in both 'train' and 'test': 'a'; .*row 1 and .*row {last}\\)"
        with pytest.raises(InputError, match=said):
            opened(tmp_path / name, allow_shared_audio=allow)
    (tmp_path / "list.txt").write_text("train/0\n")
    assert len(captions(opened(tmp_path / "one", exclude=tmp_path / "list.txt"))) == COUNT - 1


def test_lists_of_numbers_do_not_tell_rows_apart(tmp_path: Path) -> None:
    """They were written out for each row, which took longer than all else."""
    several = {"caption": ["x", *TEXTS], "clip_id": ["c0", *(f"c{n}" for n in range(COUNT))]}
    several["caption"][1] = "x"
    columns = {
        "audio": [audio(0), *(audio(n) for n in range(COUNT))],
        "embedding": [[float(n)] for n in range(COUNT + 1)],
        **several,
    }
    data = opened(save(tmp_path / "data", **columns))
    assert data.counts["train"].repeated_rows == 1
    columns["embedding"] = [str(n) for n in range(COUNT + 1)]  # such as the person who wrote it
    data = opened(save(tmp_path / "more", **columns))
    assert captions(data)["train/0"] == ("x", "x")


def test_half_a_place_is_no_matter_where_no_part_is_read(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    videos = [None, *(f"{n:011}" for n in range(1, COUNT))]
    table(caption=TEXTS, youtube_id=videos, start_time=[1] * COUNT).save_to_disk(
        str(tmp_path / "a")
    )
    opened(tmp_path / "a")
    assert not [x for x in recwarn if "fill in both" in str(x.message)]


def test_captions_that_are_numbers(tmp_path: Path) -> None:
    table(caption=["12", *(f"sound {n}" for n in range(1, COUNT))]).save_to_disk(tmp_path / "some")
    with pytest.warns(UserWarning, match=r"numbers or dates \(1 of 20\): '12' \(train/0\)"):
        opened(tmp_path / "some")
    table(caption=[str(n) for n in range(COUNT)]).save_to_disk(tmp_path / "all")
    with pytest.raises(InputError, match=r"numbers or dates \(20 of 20\)"):
        opened(tmp_path / "all")
