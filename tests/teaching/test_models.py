"""Teachers that embed what is trained on, and the files that keep it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear import LinearModel
from tiny_bundle import SENTENCES, make_bundle

from atr_moco_plugin.criterion import Atc, AtcConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
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


@pytest.mark.parametrize("student_reads", [True, False])
def test_a_clip_that_the_teacher_alone_cannot_embed_is_refused_before_the_first_step(
    tmp_path: Path, student_reads: bool
) -> None:
    """The run ended when the clip first came up."""

    def read(clip: Clip) -> Any:
        if clip.key == "short":
            if not student_reads:
                raise InputError("it is broken")
            return tone[:6_400]
        return tone

    tone = np.sin(np.arange(24_000, dtype=np.float32) / 8)
    clips = [Clip(x, (SENTENCES[i],), None) for i, x in enumerate(("one", "short", "two"))]
    data = AudioTextDataset("tones", {"train": clips}, read=read, read_rate=16_000)
    data.read_with(AudioReader(16_000))
    make_bundle(tmp_path / "teacher", patch=64)  # a token lasts longer than the short clip
    for _ in ("embedded", "read again"):
        if not student_reads:
            taught_by(tmp_path / "teacher", data, tmp_path / "out")
            continue
        with pytest.raises(
            InputError, match=r"cannot embed 1 clips .* 'short' \(.*at least 0.655 s"
        ):
            taught_by(tmp_path / "teacher", data, tmp_path / "out")
