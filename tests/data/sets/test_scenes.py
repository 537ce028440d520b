from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

import numpy as np
import pytest
from scene_folders import RATE, write_classes, write_tone

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.scenes import ScenesConfig, draw_scene, open_scenes
from atr_moco_plugin.data.summary import shared_captions
from atr_moco_plugin.errors import InputError

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "esc50-16k"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real ESC-50 clips are not beside the repo")

SIZES = {"num_train": 30, "num_valid": 8, "num_test": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("scenes"))


def opened(root: Path, **options: object) -> AudioTextDataset:
    config = ScenesConfig(**{"root": root, **SIZES, **options})
    return open_scenes(config).read_with(AudioReader(RATE))


def test_no_recording_is_heard_in_two_splits(root: Path) -> None:
    data = opened(root, num_train=200, num_valid=100, num_test=100)
    heard = {
        split: {path for clip in clips for path in clip.source.paths}
        for split, clips in data.splits.items()
    }
    assert list(heard) == ["train", "valid", "test"]
    assert sum(map(len, heard.values())) == len(set.union(*heard.values())) == 18
    for split, clips in data.splits.items():
        for clip in clips:
            labels = [event.label for event in clip.source.scene.events]
            assert len(set(labels)) == len(labels)
            assert labels == [Path(path).parent.name for path in clip.source.paths]
            assert len(clip.captions) == 5 and clip.key.startswith(split)


def test_seen_has_other_scenes_of_the_recordings_of_train(root: Path) -> None:
    data, without = opened(root, num_train=200, num_seen=40), opened(root, num_train=200)
    assert list(data.splits) == ["train", "valid", "test", "seen"] and "seen" not in without.splits
    seen, train = data.clips("seen"), data.clips("train")
    heard = {path for clip in train for path in clip.source.paths}
    assert len(seen) == 40 and {path for clip in seen for path in clip.source.paths} <= heard
    assert data.load(seen[0]).shape == data.load(train[0]).shape
    assert not {data.load(clip).tobytes() for clip in seen} & {
        data.load(clip).tobytes() for clip in train
    }
    for split in ("train", "valid", "test"):
        assert data.clips(split) == without.clips(split)


def test_a_clip_depends_on_seed_key_and_recordings_alone(root: Path) -> None:
    data, more = opened(root), opened(root, num_train=60)
    assert data.clips("train") == more.clips("train")[:30]
    clip = data.clips("train")[3]
    wave = data.load(clip)
    more.load(more.clips("train")[50])
    np.testing.assert_array_equal(wave, more.load(clip))
    other = opened(root, seed=1)
    assert other.name == "scenes-1" and other.fingerprint() != data.fingerprint()
    assert not np.array_equal(wave, other.load(clip))


def test_captions_are_fixed(root: Path) -> None:
    # Published figures are of these captions; change them together.
    data = opened(root)
    captions = AudioTextDataset(data.name, data.splits).fingerprint()
    assert captions == "a133462c0120e05d656993f8dc9864c6"


def test_the_fingerprint_is_of_what_is_heard_wherever_it_lies(root: Path, tmp_path: Path) -> None:
    moved = opened(Path(shutil.copytree(root, tmp_path / "moved")))
    assert moved.clips("train") != opened(root).clips("train")
    assert moved.fingerprint() == opened(root).fingerprint()
    others = [{}, {"split_seed": 5}, {"seconds": 6.0}, {"sample_rate": 22_050}]
    assert len({opened(root, **options).fingerprint() for options in others}) == len(others)


def test_another_process_renders_the_same(root: Path) -> None:
    data = opened(root)
    wave = data.load(data.clips("test")[0])
    code = (
        "import hashlib, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from atr_moco_plugin.data.audio.reader import AudioReader\n"
        "from atr_moco_plugin.data.sets.scenes import ScenesConfig, open_scenes\n"
        "data = open_scenes(ScenesConfig(root=Path(sys.argv[1]), num_valid=0, num_test=1))\n"
        "wave = data.read_with(AudioReader(16000)).load(data.clips('test')[0])\n"
        "print(hashlib.sha256(wave.tobytes()).hexdigest())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(root), *sys.path],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == hashlib.sha256(wave.tobytes()).hexdigest()


def test_popular_scenes_share_captions_and_no_recording_by_design(root: Path) -> None:
    rare, popular = (opened(root, num_train=300, popular_share=p) for p in (0.0, 1.0))
    scenes = {clip.source.scene for clip in popular.clips("train")}
    assert len(scenes) <= 24 < len({clip.source.scene for clip in rare.clips("train")})
    assert shared_captions(popular.clips("train"))[0] > shared_captions(rare.clips("train"))[0]
    most = popular.clips("train")[0].source.scene
    same = [c for c in popular.clips("train") if c.source.scene == most]
    assert len({clip.source.paths for clip in same}) > 1


def test_scenes_have_one_to_three_sounds_as_often_as_asked() -> None:
    rng = Random(0)
    scenes = [draw_scene(rng, list("abcd"), 0.3, 0.2) for _ in range(2000)]
    sizes = [len(scene.events) for scene in scenes]
    assert [sizes.count(n) / 2000 for n in (1, 2, 3)] == pytest.approx([0.3, 0.5, 0.2], abs=0.04)
    assert {s.arrangement for s in scenes if len(s.events) == 1} == {"alone"}
    assert {s.arrangement for s in scenes if len(s.events) == 3} == {"then", "while"}
    two_classes = [draw_scene(rng, list("ab"), 0.3, 0.5) for _ in range(200)]
    assert {len(scene.events) for scene in two_classes} == {1, 2}


def test_the_cache_on_disk_renders_once_and_notices_a_changed_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_classes(tmp_path / "sounds", each=3)
    reader = AudioReader(RATE, cache_dir=tmp_path / "cache")
    data = open_scenes(ScenesConfig(root=root, **SIZES)).read_with(reader)
    clip = data.clips("train")[0]
    wave = data.load(clip)
    np.testing.assert_array_equal(wave, opened(root).load(clip))
    path = Path(clip.source.paths[0])
    again = open_scenes(ScenesConfig(root=root, check_audio=False, **SIZES)).read_with(reader)
    with monkeypatch.context() as nobody:  # reads it again
        nobody.delattr("atr_moco_plugin.data.sets.scene_rendering.read_audio")
        np.testing.assert_array_equal(wave, again.load(again.clips("train")[0]))
    state = path.stat()
    write_tone(path, 4000)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not np.array_equal(wave, again.load(again.clips("train")[0]))


def test_clips_are_rendered_at_the_rate_that_is_asked(root: Path) -> None:
    data = open_scenes(ScenesConfig(root=root, sample_rate=8000, seconds=3, **SIZES))
    assert data.read_with(AudioReader(8000)).load(data.clips("test")[0]).shape == (24_000,)
    data = open_scenes(ScenesConfig(root=root, sample_rate=8000, seconds=3, **SIZES))
    with pytest.warns(UserWarning, match="lower sampling rate than the model's 16000 Hz"):
        data.read_with(AudioReader(RATE))
    assert data.load(data.clips("test")[0]).shape == (48_000,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 1.0}, "`seconds` is 1.0, expected 2 to 60"),
        ({"num_train": 0, "num_valid": 0, "num_test": 0}, "are 0, expected clips"),
        ({"single_share": 0.6, "triple_share": 0.6}, "0.6 and 0.6, expected at most 1 together"),
        ({"test_fraction": 1.0}, "`test_fraction` is 1.0, expected at least 0 and below 1"),
        ({"sample_rate": 10}, "`sample_rate` is 10, expected 1000 to 768000"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScenesConfig(**{**SIZES, **options})


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recordings of one class, 'dog', and scenes need two"):
        opened(write_classes(tmp_path, ["dog"]))


def test_one_recording_a_class_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, each=1)
    with pytest.raises(InputError, match="the split 'valid' has no recording, .* num_valid to 0"):
        opened(tmp_path)
    data = opened(tmp_path, num_valid=0, num_test=0)  # to pre-train on all there is
    assert list(data.splits) == ["train"]


def test_a_class_that_a_split_lacks_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path)
    write_tone(tmp_path / "gong" / "0.wav")
    with pytest.warns(UserWarning, match="1 of 4 classes have no recording for the split 'test'"):
        opened(tmp_path)


@real
def test_scenes_of_real_recordings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with few recordings
        data = opened(REAL, num_train=300)
    assert len({e.label for c in data.clips("train") for e in c.source.scene.events}) == 50
    for clip in data.clips("test"):
        wave = data.load(clip)
        assert wave.shape == (5 * RATE,) and 0.02 < np.abs(wave).max() < 0.999
    assert "0 clips without audio left out" in data.summary()
