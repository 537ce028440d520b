from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.data.sets.toy_files import main, write_toy

READER = AudioReader(16_000)


def test_write_toy_gives_files_that_read_back_exactly(tmp_path: Path) -> None:
    data = open_toy(ToyConfig(num_train=3, num_valid=1, num_test=1))
    manifest = write_toy(data.read_with(READER), tmp_path / "out")
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 3 + ["valid", "test"]
    for row, clip in zip(
        rows, [clip for clips in data.splits.values() for clip in clips], strict=True
    ):
        assert tuple(row[f"caption_{k}"] for k in range(1, 6)) == clip.captions
        np.testing.assert_array_equal(
            read_audio(manifest.parent / row["file_name"], 16_000), data.load(clip)
        )


def test_the_command_writes_the_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--test", "2"]) == 0
    assert capsys.readouterr().out == f"Manifest: {tmp_path / 'manifest.csv'}\n"
    assert sorted(x.name for x in tmp_path.rglob("*.wav")) == ["test-00000.wav", "test-00001.wav"]
    clip = open_toy().clips("test")[1]
    want = open_toy().read_with(READER).load(clip)
    np.testing.assert_array_equal(read_audio(tmp_path / "test/test-00001.wav", 16_000), want)


def test_what_cannot_be_made_or_written_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "out"), "--test", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ") and "expected clips in one of them" in said
    assert main([str(tmp_path / "file" / "out"), "--test", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ERROR: {tmp_path / 'file' / 'out'}: cannot be written (Not a dir")
    assert said.count("\n") == 1
