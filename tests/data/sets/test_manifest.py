from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest, read_manifest_captions
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.data.sets.toy_files import write_toy

READER = AudioReader(16_000)

ROWS = [
    ("one/-a.wav", "A dog barks, loudly", "train"),
    ("two/_b.flac", "Un caf\u00e9", "val"),
    ("one/-a.wav", "A bark", "train"),
    ("c.ogg", "Rain", "evaluation"),
    ("d.wav", "Wind", "holdout"),
]
EXPECTED = {
    "train": {"one/-a.wav": ("A dog barks, loudly", "A bark")},
    "valid": {"two/_b.flac": ("Un caf\u00e9",)},
    "test": {"c.ogg": ("Rain",)},
    "holdout": {"d.wav": ("Wind",)},
}


@pytest.fixture
def build(
    write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> Callable[..., Path]:
    def build(root: Path, name: str = "manifest.csv", encoding: str = "utf-8") -> Path:
        for file, _, _ in ROWS:
            write_audio(root / file)
        path = root / name
        if path.suffix == ".jsonl":
            lines = [json.dumps({"audio": a, "text": c, "split": s}) for a, c, s in ROWS]
            path.write_text("\n".join(lines), encoding=encoding)
            return path
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return write_table(path, ("file_name", "caption", "split"), ROWS, encoding, delimiter)

    return build


def content(data: AudioTextDataset) -> dict[str, dict[str, tuple[str, ...]]]:
    return {s: {clip.key: clip.captions for clip in clips} for s, clips in data.splits.items()}


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.tsv", "manifest.jsonl", "mine.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_formats(tmp_path: Path, build: Callable[..., Path], name: str, encoding: str) -> None:
    path = build(tmp_path, name, encoding)
    for root in (tmp_path, path):
        data = open_manifest(ManifestConfig(root, strict=True))
        assert content(data) == EXPECTED
        assert list(data.splits) == list(EXPECTED)
        assert data.read_with(READER).load(data.clips("test")[0]).shape == (4800,)


def test_audio_elsewhere_and_absolute_paths_give_the_same_clips(
    tmp_path: Path, build: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    path = build(tmp_path / "audio")
    moved = path.rename(tmp_path / "manifest.csv")
    data = open_manifest(ManifestConfig(moved, audio=tmp_path / "audio", strict=True))
    assert content(data) == EXPECTED
    rows = [(os.fspath(tmp_path / "audio" / file), text, split) for file, text, split in ROWS]
    write_table(moved, ("wav", "full_text", "subset"), rows)
    absolute = open_manifest(ManifestConfig(moved, audio=tmp_path / "audio", strict=True))
    assert absolute.fingerprint() == data.fingerprint()
    assert open_manifest(ManifestConfig(moved, strict=True)).clips("test")[0].key == "audio/c.ogg"


@pytest.mark.parametrize(
    "spelled", ["file://{root}/0.wav", ".//0.wav", "./x/../0.wav", ".\\0.wav", "{root}//0.wav"]
)
def test_spellings_of_a_path_are_one_clip(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path], spelled: str
) -> None:
    """Rows with some of them were said to name no file."""
    for n in range(2):
        write_audio(tmp_path / f"{n}.wav")
    rows = [("1.wav", "a cat"), (spelled.format(root=tmp_path), "a dog"), ("0.wav", "a dog barks")]
    write_table(tmp_path / "manifest.csv", ("file_name", "caption"), rows)
    data = open_manifest(ManifestConfig(root=tmp_path))
    expected = {"1.wav": ("a cat",), "0.wav": ("a dog", "a dog barks")}
    assert content(data)["train"] == expected


def test_own_ids_group_rows_and_the_split_has_a_default(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "x.wav")
    write_audio(tmp_path / "y.wav")
    write_audio(tmp_path / "z.wav")
    write_audio(tmp_path / "w.wav")
    rows = [
        ("7", "x.wav", "a dog", "", ""),  # a blank cell beside a caption is no caption
        ("007", "y.wav", "rain", "wind", "a bird"),
        ("8", "z.wav", "", " ", "a cat"),
        ("8", "z.wav", "a car", "...", ""),
        ("9", "w.wav", "", "", ""),
    ]
    columns = ("clip_id", "fname", "caption_1", "caption_2", "caption_3")
    path = write_table(tmp_path / "m.csv", columns, rows)
    data = open_manifest(ManifestConfig(path, split="test", name="mine"))
    assert content(data) == {
        "test": {"7": ("a dog",), "007": ("rain", "wind", "a bird"), "8": ("a cat", "a car")}
    }
    assert data.name == "mine" and data.counts["test"].no_caption == 1
    assert data.counts["test"].empty_captions == 1 + 3  # the dots, and the row without any


def test_lists_of_captions_and_numbers_as_ids_in_json(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "x.wav")
    long = "word " * 5_000
    lines = [
        {"id": 7, "audio": "x.wav", "captions": ["a dog", "", long]},
        {"id": 7, "audio": "x.wav", "captions": ["a bark"], "split": None},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (clip,) = open_manifest(ManifestConfig(tmp_path)).clips("train")
    assert clip.key == "7" and clip.captions == ("a dog", long.strip(), "a bark")


def test_youtube_ids_as_audio(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "Y-_abcdefghi.wav")
    write_audio(tmp_path / "12345678901.flac")
    rows = [("-_abcdefghi", "a"), ("12345678901", "b")]
    path = write_table(tmp_path / "m.csv", ("youtube_id", "caption"), rows)
    data = open_manifest(ManifestConfig(path, strict=True))
    assert [Path(clip.source).name for clip in data.clips("train")] == [
        "Y-_abcdefghi.wav",
        "12345678901.flac",
    ]


def test_the_toy_data_set_as_written(tmp_path: Path) -> None:
    toy = open_toy(ToyConfig(num_train=3, num_valid=2, num_test=1))
    data = open_manifest(ManifestConfig(write_toy(toy.read_with(READER), tmp_path), strict=True))
    for split in ("train", "valid", "test"):
        for own, read in zip(toy.clips(split), data.clips(split), strict=True):
            assert read.captions == own.captions
            np.testing.assert_array_equal(data.read_with(READER).load(read), toy.load(own))
    assert data.seconds == toy.seconds


def test_missing_audio(tmp_path: Path, build: Callable[..., Path]) -> None:
    path = build(tmp_path)
    (tmp_path / "c.ogg").unlink()
    data = open_manifest(ManifestConfig(path))
    assert list(data.splits) == ["train", "valid", "holdout"] and data.missing == 1
    with pytest.raises(FileNotFoundError, match="1 of 4 clips have no audio there: looked"):
        open_manifest(ManifestConfig(path, strict=True))
    with pytest.raises(FileNotFoundError, match="none of the 4 clips has its audio there"):
        open_manifest(ManifestConfig(path, audio=tmp_path / "nowhere"))


def test_a_bare_name_of_a_file_in_a_subfolder_is_told(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    for name in ("a.wav", "dogs/b.wav", "dogs/c.wav"):
        write_audio(tmp_path / name)
    rows = [("a.wav", "rain"), ("b.wav", "a bark"), ("c.wav", "a howl")]
    path = write_table(tmp_path / "m.csv", ("file_name", "caption"), rows)
    told = "'b.wav' lies in a subfolder: write 'dogs/b.wav' into the table"
    with pytest.warns(UserWarning, match="2 clips are without audio .*" + told):
        assert open_manifest(ManifestConfig(path)).missing == 2
    (tmp_path / "a.wav").unlink()
    (tmp_path / "dogs" / "b.wav").rename(tmp_path / "dogs" / "d.wav")
    with pytest.raises(FileNotFoundError, match="none of the 3 .*'c.wav' lies in a subfolder"):
        open_manifest(ManifestConfig(path))


def test_the_first_missing_names_are_given_with_what_was_tried(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "a.wav")
    rows = [("a.wav", "rain"), *((f"gone\\{i}.wav", "rain") for i in range(7))]
    path = write_table(tmp_path / "m.csv", ("file_name", "caption"), rows)
    with pytest.warns(
        UserWarning, match="manifest: 7 clips are without audio in .*, of 8: "
    ) as said:
        assert open_manifest(ManifestConfig(path)).missing == 7
    (message,) = [str(x.message) for x in said if "without audio" in str(x.message)]
    assert message.count(r"gone\\") == 5 and "and 2 more; names were tried as they are" in message


def test_errors(
    tmp_path: Path, build: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match="A manifest needs its table: set root"):
        open_manifest(ManifestConfig())
    with pytest.raises(FileNotFoundError, match="no single manifest there: .*no such folder"):
        open_manifest(ManifestConfig(tmp_path / "nowhere"))
    path = build(tmp_path, "a.csv")
    write_table(tmp_path / "b.csv", ("file_name", "caption"), [("c.ogg", "rain")])
    with pytest.raises(FileNotFoundError, match="no single manifest there: .*found a.csv, b.csv"):
        open_manifest(ManifestConfig(tmp_path))
    with path.open("a", encoding="utf-8") as file:
        file.write("c.ogg,more rain,train\n")
    with pytest.raises(ValueError, match="1 clip is in both 'train' and 'test': 'c.ogg'"):
        open_manifest(ManifestConfig(path))
    write_table(path, ("file_name", "label"), [("c.ogg", "rain")])
    with pytest.raises(ValueError, match="row 1 does not say a caption; .*has file_name, label"):
        open_manifest(ManifestConfig(path))
    write_table(path, ("caption", "file_name"), [("rain", "c.ogg"), ("rain", "")])
    with pytest.raises(ValueError, match="row 2 does not say the audio's path; needed are one of"):
        open_manifest(ManifestConfig(path))
    write_table(path, ("file_name", "caption"), [])
    with pytest.raises(ValueError, match="a.csv: has no rows"):
        open_manifest(ManifestConfig(path))
    write_table(path, ("file_name", "caption"), [("c.ogg", "...")])
    with pytest.raises(ValueError, match="1 clip is of split 'train' without a caption: 'c.ogg'"):
        open_manifest(ManifestConfig(path))


def test_captions_alone(tmp_path: Path, build: Callable[..., Path]) -> None:
    tables = read_manifest_captions(build(tmp_path))
    assert {s: {k: i.captions for k, i in t.recordings.items()} for s, t in tables.items()} == (
        EXPECTED
    )


def test_rows_of_unknown_splits_are_counted_in_a_warning(
    tmp_path: Path, write_table: Callable[..., Path]
) -> None:
    rows = [(f"{i}.wav", "Rain", name) for i, name in enumerate(["train", "tset", "tset", "Dev"])]
    path = write_table(tmp_path / "m.csv", ("file_name", "caption", "split"), rows)
    with pytest.warns(UserWarning, match=r"splits 'tset' \(2\), 'Dev' \(1\) are neither trained"):
        assert set(read_manifest_captions(path)) == {"train", "tset", "Dev"}


def test_a_column_of_splits_under_another_name_is_named_in_a_warning(
    tmp_path: Path, write_table: Callable[..., Path]
) -> None:
    rows = [("a.wav", "Rain", "Train", "test"), ("b.wav", "Wind", "test ", "test")]
    path = write_table(tmp_path / "m.csv", ("file_name", "caption", "set", "same"), rows)
    with pytest.warns(
        UserWarning, match="column 'set' has names of splits and is not read"
    ) as seen:
        assert set(read_manifest_captions(path)) == {"train"}
    assert len(seen) == 1
