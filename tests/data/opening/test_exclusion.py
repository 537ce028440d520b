"""A list of clips that are left out: every family takes it, and a wrong one is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.exclusion import Exclusion, write_exclusion
from atr_moco_plugin.data.sets.captions_alone import open_captions_alone
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset
from atr_moco_plugin.errors import InputError, MissingFileError

Write = Callable[..., Path]


def keys(data: AudioTextDataset) -> dict[str, list[str]]:
    return {split: [clip.key for clip in clips] for split, clips in data.splits.items()}


@pytest.fixture
def manifest(tmp_path: Path, write_audio: Write) -> Callable[..., AudioTextDataset]:
    """Opens a table of rows, which makes the files, with a list of keys to leave out."""

    def open_rows(
        rows: list[tuple[str, str, str]], *excluded: str, **options: object
    ) -> AudioTextDataset:
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("split", "file_name", "caption"), *rows])
        for _, name, _ in rows:
            if not (tmp_path / name).exists() and "missing" not in name:
                write_audio(tmp_path / name)
        listed = tmp_path / "left out.txt"
        write_exclusion(listed, excluded)
        config = ManifestConfig(root=tmp_path / "rows.csv", exclude=listed, **options)  # type: ignore[arg-type]
        return open_manifest(config)

    return open_rows


ROWS = [("train", "a.wav", "A"), ("train", "b.wav", "B"), ("test", "c.wav", "C")]


def test_clips_of_the_list_are_left_out_and_counted(
    manifest: Callable[..., AudioTextDataset],
) -> None:
    data = manifest(ROWS, "b.wav")
    assert keys(data) == {"train": ["a.wav"], "test": ["c.wav"]}
    assert (data.counts["train"].excluded, data.counts["test"].excluded) == (1, 0)
    assert "1 clips left out by the list of exclude" in data.summary()
    assert data.fingerprint() != manifest(ROWS).fingerprint()


def test_an_empty_list_leaves_everything_in(manifest: Callable[..., AudioTextDataset]) -> None:
    data = manifest(ROWS)
    assert keys(data) == {"train": ["a.wav", "b.wav"], "test": ["c.wav"]}
    assert "exclude" not in data.summary()


def test_a_split_may_become_empty(manifest: Callable[..., AudioTextDataset]) -> None:
    assert keys(manifest(ROWS, "c.wav")) == {"train": ["a.wav", "b.wav"]}


def test_a_list_of_another_data_set_is_refused(manifest: Callable[..., AudioTextDataset]) -> None:
    with pytest.raises(InputError, match=r"left out.txt: line 2 leaves out 'x.wav', which is no"):
        manifest(ROWS, "b.wav", "x.wav")
    with pytest.raises(InputError, match=r"left out.txt: leaves out every clip of manifest"):
        manifest(ROWS, "a.wav", "b.wav", "c.wav")


def test_a_list_that_is_not_there_is_refused(tmp_path: Path, write_audio: Write) -> None:
    for place in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(MissingFileError, match="list of clips to leave out cannot be read"):
            Exclusion(place)


def test_what_is_refused_without_the_list_opens_with_it(
    manifest: Callable[..., AudioTextDataset], tmp_path: Path
) -> None:
    rows = [("train", "a.wav", "A"), ("train", "b.wav", "B"), ("test", "a.wav", "C")]
    with pytest.raises(InputError, match="in both 'train' and 'test'"):
        manifest(rows)
    allowed = manifest(rows, allow_shared_audio=True)
    assert keys(allowed) == {"train": ["a.wav", "b.wav"], "test": ["test/a.wav"]}
    # The keys are those of the data set that was inspected.
    assert keys(manifest(rows, "a.wav")) == {"train": ["b.wav"], "test": ["test/a.wav"]}
    assert keys(manifest(rows, "test/a.wav")) == {"train": ["a.wav", "b.wav"]}
    twice = manifest(rows, "a.wav", allow_shared_audio=True)
    assert keys(twice) == {"train": ["b.wav"], "test": ["test/a.wav"]}


def test_equal_files_in_two_splits_open_with_the_list(
    manifest: Callable[..., AudioTextDataset], tmp_path: Path, write_audio: Write
) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "c.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    with pytest.raises(InputError, match="1 recordings are in two splits"):
        manifest(ROWS)
    assert keys(manifest(ROWS, "a.wav")) == {"train": ["b.wav"], "test": ["c.wav"]}


def test_a_conflict_that_the_list_does_not_mend_stays_one(
    manifest: Callable[..., AudioTextDataset],
) -> None:
    rows = [(split, "a.wav", split) for split in ("train", "valid", "test")]
    with pytest.raises(InputError, match="in both 'valid' and 'test'"):
        manifest(rows, "a.wav")


def test_all_rows_of_a_file_go_with_it(
    manifest: Callable[..., AudioTextDataset], tmp_path: Path, write_audio: Write
) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    rows = [("train", "a.wav", "A"), ("train", "link.wav", "B"), ("train", "b.wav", "C")]
    (key,) = set(keys(manifest(rows))["train"]) - {"b.wav"}
    assert keys(manifest(rows, key)) == {"train": ["b.wav"]}


def test_what_is_left_out_is_not_missing(manifest: Callable[..., AudioTextDataset]) -> None:
    rows = [*ROWS, ("test", "missing.wav", "M")]
    data = manifest(rows, "missing.wav", strict=True)
    assert (data.counts["test"].missing, data.counts["test"].excluded) == (0, 1)


def test_a_broken_file_that_is_left_out_is_not_told(
    manifest: Callable[..., AudioTextDataset], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    data = manifest(ROWS, "b.wav", strict=True)
    assert (data.counts["train"].unreadable, data.counts["train"].excluded) == (0, 1)
    assert not recwarn.list


def test_a_list_from_windows_and_with_empty_lines(tmp_path: Path, write_audio: Write) -> None:
    write_audio(tmp_path / "a b.wav")
    write_audio(tmp_path / "Å.wav")
    (tmp_path / "rows.csv").write_text("file_name,caption\na b.wav,A\nÅ.wav,B\n", "utf-8")
    (tmp_path / "list.txt").write_bytes("\ufeff\r\nÅ.wav\r\n\r\n".encode())
    config = ManifestConfig(root=tmp_path / "rows.csv", exclude=tmp_path / "list.txt")
    assert keys(open_manifest(config)) == {"train": ["a b.wav"]}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    write_exclusion(tmp_path / "list.txt", ["a\udcff.wav"])
    exclusion = Exclusion(tmp_path / "list.txt")
    from atr_moco_plugin.data.clips import Clip

    clips = [Clip("a\udcff.wav", ("A",), "x"), Clip("b.wav", ("B",), "y")]
    assert exclusion.from_clips("set", {"train": clips}) == {"train": clips[1:]}
    with pytest.raises(InputError, match="line break"):
        write_exclusion(tmp_path / "list.txt", ["a\nb.wav"])


def test_families(tmp_path: Path, write_audio: Write, write_table: Write) -> None:
    """AudioCaps by video, WavCaps by id with its validation split as it was."""
    videos = ["abcdefghijk", "bbcdefghijk", "cbcdefghijk"]
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    rows = [(str(k), video, "30", f"Sound {k}") for k, video in enumerate(videos)]
    write_table(tmp_path / "caps" / "train.csv", columns, rows)
    for video in videos:
        write_audio(tmp_path / "caps" / "train" / f"Y{video}.wav")
    (tmp_path / "list.txt").write_text(f"{videos[1]}\n")
    options = {"root": str(tmp_path / "caps"), "exclude": str(tmp_path / "list.txt")}
    config = dataset_config("audiocaps", options)
    assert keys(open_dataset("audiocaps", config)) == {"train": [videos[0], videos[2]]}
    alone = open_captions_alone("audiocaps", config)
    assert keys(alone) == {"train": [videos[0], videos[2]]}
    assert alone.counts["train"].excluded == 1

    entries = [{"id": str(number), "caption": f"Rain {number}"} for number in range(8)]
    write_audio(tmp_path / "wav" / "0.flac")
    (tmp_path / "wav" / "fsd.json").write_text(json.dumps({"data": entries}))
    for number in range(8):
        write_audio(tmp_path / "wav" / f"{number}.flac")
    options = {"root": str(tmp_path / "wav"), "valid_fraction": 0.25}
    whole = keys(open_dataset("wavcaps", dataset_config("wavcaps", options)))
    gone = whole["valid"][0]
    (tmp_path / "list.txt").write_text(f"{gone}\n")
    config = dataset_config("wavcaps", {**options, "exclude": str(tmp_path / "list.txt")})
    left = {split: [key for key in own if key != gone] for split, own in whole.items()}
    assert keys(open_dataset("wavcaps", config)) == left
