"""Silent clips are told of before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from finetune_world import prepared
from sound_folders import RATE, write_sound

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.prepare import prepare
from atr_moco_plugin.finetuning.silent import silence_notes, silent_clips


def folder_of(tmp_path: Path, silent: tuple[int, ...], count: int = 6) -> AudioTextDataset:
    clips = []
    for number in range(count):
        file = tmp_path / f"{number}.wav"
        if number in silent:
            soundfile.write(file, np.zeros(RATE, np.float32), RATE)
        else:
            write_sound(file, number)
        clips.append(Clip(f"clip{number}", ("a",), str(file)))
    return AudioTextDataset("d", {"train": clips})


def test_silent_clips_are_named(tmp_path: Path) -> None:
    data = folder_of(tmp_path, (1, 4))
    assert silent_clips(data, "train") == ["clip1", "clip4"]
    (tmp_path / "4.wav").unlink()  # who cannot be read is told of elsewhere
    assert silence_notes(data, ["train"]) == [
        "1 of 6 clips of train is silent (clip1): leave it out, or a caption is learned for "
        "silence."
    ]
    assert not silence_notes(folder_of(tmp_path, ()), ["train"])


def test_nothing_but_silence_is_refused(tmp_path: Path) -> None:
    data = folder_of(tmp_path, tuple(range(6)))
    with pytest.raises(InputError, match="All 6 clips of d train are silent .clip0, clip1, clip2 "):
        silence_notes(data, ["train"])


def test_it_is_said_before_the_plan(tmp_path: Path) -> None:
    for name in ("dog", "rain"):
        for number in range(10):
            write_sound(tmp_path / "sounds" / name / f"{number}.wav", number + 10 * (name == "dog"))
    soundfile.write(tmp_path / "sounds" / "dog" / "0.wav", np.zeros(RATE, np.float32), RATE)
    said: list[str] = []
    stated = {
        "init": "random",
        "loop": "transformers",
        "model": {"arch": "toy"},
        "dataset": {"config_overrides": {"root": str(tmp_path / "sounds")}},
    }
    prepare(stated, tmp_path / "out", tell=said.append)  # type: ignore[arg-type]
    at = [number for number, text in enumerate(said) if "silent (dog/0.wav)" in text]
    assert len(at) == 1 and said[at[0] + 1].startswith("The plan")


def test_rendered_clips_are_not_rendered_for_it(tmp_path: Path) -> None:
    data = prepared(tmp_path).dataset
    assert data.read is not None and silent_clips(data, "train") == []
