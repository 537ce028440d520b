from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atr_moco_plugin.data.sets.captions_alone import CAPTIONS_ALONE, open_captions_alone
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset
from atr_moco_plugin.errors import InputError, MissingFileError

Write = Callable[..., Path]


def folder_of(family: str, root: Path, write_audio: Write, write_table: Write) -> None:
    """A small data set of two splits where the family has splits."""
    if family == "audiocaps":
        for split, video in (("train", "abcdefghijk"), ("test", "bbcdefghijk")):
            columns = ("audiocap_id", "youtube_id", "start_time", "caption")
            write_table(root / f"{split}.csv", columns, [("1", video, "0", f"Rain in {split}")])
            write_audio(root / split / f"{video}.wav")
    elif family == "clotho":
        for split in ("development", "evaluation"):
            rows = [("Rain &amp; wind.wav", f"Rain in {split}", "Wind")]
            write_table(root / f"{split}.csv", ("file_name", "caption_1", "caption_2"), rows)
            write_audio(root / split / "Rain & wind.wav")
    elif family == "wavcaps":
        entries = [{"id": str(number), "caption": f"Rain {number}"} for number in range(8)]
        (root / "fsd.json").write_text(json.dumps({"data": entries}))
        for number in range(8):
            write_audio(root / f"{number}.flac")
    else:
        rows = [
            ("a.wav", "A dog", "train"),
            ("b.wav", "A cat", "development"),
            ("a.wav", "Dogs", "train"),
        ]
        write_table(root / "manifest.csv", ("file_name", "caption", "split"), rows)
        for name in ("a.wav", "b.wav"):
            write_audio(root / name)


@pytest.mark.parametrize("family", CAPTIONS_ALONE)
def test_clips_are_those_of_the_data_set_with_audio(
    family: str, tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    folder_of(family, tmp_path, write_audio, write_table)
    options: dict[str, Any] = {"root": str(tmp_path)}
    if family == "wavcaps":
        options["valid_fraction"] = 0.25
    config = dataset_config(family, options)
    whole = open_dataset(family, config)
    for path in [*tmp_path.rglob("*.wav"), *tmp_path.rglob("*.flac")]:
        path.unlink()
    with pytest.raises(MissingFileError):
        open_dataset(family, config)
    alone = open_captions_alone(family, config)
    assert alone.name == whole.name
    assert alone.fingerprint() == whole.fingerprint()
    assert alone.missing == sum(map(len, whole.splits.values()))


def test_a_clip_in_two_splits_has_two_keys_where_that_is_allowed(
    tmp_path: Path, write_table: Write
) -> None:
    columns = ("youtube_id", "start_time", "caption")
    for split in ("train", "test"):
        write_table(tmp_path / f"{split}.csv", columns, [("abcdefghijk", "0", "Rain")])
    with pytest.raises(InputError, match="in both 'train' and 'test'"):
        open_captions_alone("audiocaps", dataset_config("audiocaps", {"root": str(tmp_path)}))
    options = {"root": str(tmp_path), "allow_shared_audio": True}
    dataset = open_captions_alone("audiocaps", dataset_config("audiocaps", options))
    keys = {split: [clip.key for clip in clips] for split, clips in dataset.splits.items()}
    assert keys == {"train": ["abcdefghijk"], "test": ["test/abcdefghijk"]}
