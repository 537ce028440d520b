"""Teachers that embed what is trained on, and the files that keep it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linear import LinearModel
from safetensors.torch import load_file
from scene_folders import write_classes
from tiny_bundle import SENTENCES, make_bundle

from atr_moco_plugin.criterion import Atc, AtcConfig
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.scenes import ScenesConfig, open_scenes
from atr_moco_plugin.embedding_cache.build import Ranks
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.trained_clips import keep_trained_clips
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.teaching import use_teachers
from atr_moco_plugin.teaching.models import Split, embed_split


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


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_wording_counts_once_however_many_processes_embed(
    processes: int, tmp_path: Path
) -> None:
    """A wording counted once for each process that had a clip with it."""
    wordings = ("A dog barks", "a dog barks.")  # of one id, and the tokens differ
    captions = (wordings[:1], wordings[:1], wordings, ("rain falls", *wordings[:1]))
    clips = [Clip(str(i), own, None) for i, own in enumerate(captions)]
    data = AudioTextDataset("tones", {"train": clips}, read=_noise, read_rate=16_000)
    data.read_with(AudioReader(16_000))
    teacher = make_bundle(tmp_path / "teacher", sentences=[*SENTENCES, *wordings])
    split, file = Split(data, "train", 2, 0, torch.device("cpu")), tmp_path / "rows.safetensors"
    for index in reversed(range(processes)):  # the first puts the parts together
        last = Ranks(index, processes)
        ranks = last if index == 0 else Ranks(index, processes, from_first=lambda _: None)
        embed_split(teacher, file, split, {"teacher": "x"}, ranks, lambda _: None)
    found = load_file(file)
    row = found["text"][found["caption_ids"] == clips[0].caption_ids[0]][0]
    each = AudioTextRetriever.from_pretrained(teacher, device="cpu").embed_text(wordings)
    assert (each[0] - each[1]).abs().max() > 1e-3
    mean = torch.nn.functional.normalize(each.mean(dim=0), dim=0)
    torch.testing.assert_close(row, mean, atol=1e-5, rtol=0)
    assert len(found["clip_ids"]) == len(set(found["clip_ids"].tolist())) == len(clips)


def _noise(clip: Clip) -> Any:
    generator = np.random.default_rng(int(clip.key))
    return (0.1 * generator.standard_normal(8_000)).astype(np.float32)


@pytest.mark.parametrize("changed", [{"split_seed": 5}, {"seconds": 4.0}])
def test_a_run_on_other_scenes_of_the_same_recordings_is_refused(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    """It has heard recordings that are held out here, and its embeddings had the same file."""
    root, sizes = write_classes(tmp_path / "sounds"), {"num_train": 6, "num_valid": 2}
    mine, others = (
        open_scenes(ScenesConfig(root=root, num_test=2, **sizes, **more)) for more in ({}, changed)
    )
    for data in (mine, others):
        data.read_with(AudioReader(16_000))
    run, out = make_bundle(tmp_path / "run"), tmp_path / "out"
    said = {"made_with": {"data": others.fingerprint()}}
    (run / "evaluation_clips.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="was trained on other data than .* held out: train it"):
        taught_by(run, mine, out)
    taught_by(run, others, out)
    (run / "evaluation_clips.json").unlink()  # a bundle does not say its data
    taught_by(run, mine, out)
    assert len(list((out / "teachers").glob("*.safetensors"))) == 2


def test_held_out_clips_that_the_teacher_was_trained_on_are_warned_of(tmp_path: Path) -> None:
    """Its data were the same, and its training split was another."""
    data, run = tones(3), tmp_path / "run"
    teacher = make_bundle(run / "bundle")
    keep_trained_clips(run, data, "train", "more", goes_on=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was trained on")
        taught_by(teacher, data, tmp_path / "out")
    keep_trained_clips(run, data, "more", "train", goes_on=False)
    with pytest.warns(UserWarning, match="2 of 2 clips of 'more' .* the teacher .* was trained on"):
        taught_by(teacher, data, tmp_path / "other")
