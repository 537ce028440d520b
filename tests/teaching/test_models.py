"""Teachers that embed what is trained on, and the files that keep it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from linear import LinearModel
from tiny_bundle import SENTENCES, make_bundle

from atr_moco_plugin.criterion import Atc, AtcConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.teaching import use_teachers


def tones(clips: int) -> AudioTextDataset:
    def tone(clip: Clip) -> Any:
        time = np.arange(4_000, dtype=np.float32) / 16_000
        return (0.3 * np.sin(2 * np.pi * (200 + 90 * int(clip.key)) * time)).astype(np.float32)

    own = [Clip(str(i), (SENTENCES[i % 3],), None) for i in range(clips + 2)]
    splits = {"train": own[2:], "more": own[:2]}
    data = AudioTextDataset("tones", splits, read=tone, read_rate=16_000)
    return data.read_with(AudioReader(16_000))


def taught_by(teacher: Path, data: AudioTextDataset, out: Path, split: str = "train") -> int:
    """The digest of what a criterion learns from."""
    criterion = Atc(LinearModel(), AtcConfig(teachers=[str(teacher)])).train()
    use_teachers(criterion, data, split, folder=out, say=lambda _: None)
    return int(criterion.teachers_digest)


def test_a_command_with_other_data_leaves_the_file_that_a_run_goes_on_with(tmp_path: Path) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "out"
    make_bundle(teacher)
    first = taught_by(teacher, tones(3), out)
    shutil.rmtree(teacher)
    make_bundle(teacher, seed=1)  # trained on since
    others = {taught_by(teacher, tones(4), out), taught_by(teacher, tones(3), out, "more")}
    assert first not in others
    assert taught_by(teacher, tones(3), out) == first
    shutil.rmtree(teacher)
    assert taught_by(teacher, tones(3), out) == first
    assert taught_by(teacher, tones(3), out, "more") in others
    assert len(list((out / "teachers").iterdir())) == 3
