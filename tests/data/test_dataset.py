from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.summary import Counts, shared_captions
from atr_moco_plugin.ids import caption_group_id, caption_id, clip_id

READER = AudioReader(16_000)


def clips() -> list[Clip]:
    return [
        Clip("a", ("A dog barks.", "a dog is barking"), 1, label="dog"),
        Clip("b", ("a dog barks", "one bark"), 2, label="dog"),
        Clip("c", ("rain falls", "One bark!"), 3, label="rain"),
    ]


def dataset(**options: object) -> AudioTextDataset:
    return AudioTextDataset("d", {"train": clips()[:2], "test": clips()[2:]}, **options)


def test_ids_of_a_clip() -> None:
    clip = clips()[0]
    assert dataset().clip_id(clip) == clip.clip_id("d") == clip_id("d", "a")
    assert clip.caption_ids == (caption_id("a dog barks"), caption_id("a dog is barking"))
    assert clips()[1].caption_ids[0] == clip.caption_ids[0]


def test_a_caption_group_gives_its_captions_one_id() -> None:
    clip = Clip("a", ("woof", "bark"), None, caption_group="esc50/dog")
    assert clip.caption_ids == (caption_group_id("esc50/dog"),) * 2


def test_a_clip_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        clips()[0].key = "z"  # the point of the test


def test_an_unknown_split_lists_the_splits() -> None:
    with pytest.raises(ValueError, match="d has no split 'valid', but 'train', 'test'; name one"):
        dataset().clips("valid")


def test_a_key_may_occur_once() -> None:
    with pytest.raises(ValueError, match="clip 'a' is in split 'train' and again in 'test'"):
        AudioTextDataset("d", {"train": clips(), "test": clips()[:1]})


def test_every_clip_needs_a_caption() -> None:
    with pytest.raises(ValueError, match="clip 'x' of split 's' has no caption"):
        AudioTextDataset("d", {"s": [Clip("x", (), None)]})


def test_a_dataset_needs_clips() -> None:
    with pytest.raises(ValueError, match="has no clips"):
        AudioTextDataset("d", {"s": []})


def test_summary_is_one_line_of_what_is_known() -> None:
    line = dataset(counts={"train": Counts(seconds=5400.0, missing=3)}).summary()
    assert line == (
        "d: train 2 clips x 2 captions (1.50 h, 3 missing), test 1 clips x 2 captions, 1.50 h, "
        "4 of 6 captions (66.7%) shared by 2+ clips, 3 clips without audio left out"
    )
    assert " h," not in dataset().summary()


def test_shared_captions_count_other_clips_only() -> None:
    assert shared_captions(clips()) == (4, 6)
    assert shared_captions(clips()[:2]) == (2, 4)
    assert shared_captions([Clip("a", ("x", "X"), None)]) == (0, 2)


def test_fingerprint_follows_content_and_not_place() -> None:
    base = dataset().fingerprint()
    assert base == dataset(counts={"train": Counts(missing=1)}).fingerprint()
    moved = [Clip(c.key, c.captions, "elsewhere", c.label) for c in clips()]
    same = AudioTextDataset("d", {"train": moved[:2], "test": moved[2:]})
    assert same.fingerprint() == base
    others = [
        AudioTextDataset("e", {"train": clips()[:2], "test": clips()[2:]}),
        AudioTextDataset("d", {"train": clips()[:1], "test": clips()[1:]}),
        AudioTextDataset("d", {"train": clips()[1::-1], "test": clips()[2:]}),
        AudioTextDataset("d", {"train": clips()[:2], "test": [Clip("c", ("rain",), 3, "rain")]}),
        AudioTextDataset("d", {"train": clips()[:2], "test": [Clip("c", clips()[2].captions, 3)]}),
    ]
    assert len({base, *(other.fingerprint() for other in others)}) == 1 + len(others)


def test_fingerprint_of_rendered_clips_follows_what_they_are_made_of() -> None:
    def made(files: str | None) -> str:
        return AudioTextDataset(
            "d",
            {"train": clips()[:2], "test": clips()[2:]},
            read=lambda _: np.ones(16_000, np.float32),
            read_rate=16_000,
            made_of=None if files is None else lambda clip: f"{files} {clip.key}",
        ).fingerprint()

    assert made(None) == dataset().fingerprint()  # runs that were begun before go on
    assert made("dog.wav") == made("dog.wav")
    assert len({made(None), made("dog.wav"), made("rain.wav")}) == 3


def test_relevance_by_clip() -> None:
    retrieval_set = dataset().retrieval_set("train")
    assert [clip.key for clip in retrieval_set.clips] == ["a", "b"]
    assert retrieval_set.captions == ["A dog barks.", "a dog is barking", "a dog barks", "one bark"]
    assert retrieval_set.relevance.tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]
    assert retrieval_set.caption_to_audio is not None
    assert retrieval_set.caption_to_audio.tolist() == [0, 0, 1, 1]
    assert retrieval_set.caption_ids.dtype == torch.int64
    assert retrieval_set.caption_ids[0] == retrieval_set.caption_ids[2] == caption_id("a dog barks")


def test_relevance_by_label() -> None:
    whole = AudioTextDataset("d", {"test": clips()}, relevance_mode="label")
    retrieval_set = whole.retrieval_set("test")
    assert retrieval_set.captions == ["A dog barks.", "a dog is barking", "one bark", "rain falls"]
    # "one bark" is said of a dog clip and of the rain clip.
    assert retrieval_set.relevance.tolist() == [
        [True, True, True, False],
        [True, True, True, False],
        [False, False, True, True],
    ]
    assert retrieval_set.caption_to_audio is None
    assert retrieval_set.caption_ids[2] == caption_id("one bark")
    assert whole.retrieval_set("test", "clip").relevance.shape == (3, 6)


def test_relevance_errors() -> None:
    plain = AudioTextDataset("d", {"s": [Clip("x", ("a",), None)]})
    with pytest.raises(ValueError, match="clip 'x' has no label"):
        plain.retrieval_set("s", "label")
    with pytest.raises(ValueError, match="'clip' or 'label', not 'both'"):
        AudioTextDataset("d", {"s": clips()}, relevance_mode="both").retrieval_set("s")


def test_load_reads_a_path(tmp_path: Path) -> None:
    wave = np.linspace(-0.5, 0.5, 4000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    one = AudioTextDataset("d", {"s": [Clip("a", ("a",), tmp_path / "a.wav")]})
    np.testing.assert_array_equal(one.read_with(READER).load(one.clips("s")[0]), wave)


@pytest.mark.parametrize("kind", ["16-bit", "float", "beyond full scale"])
def test_the_cache_gives_back_exactly_what_was_read_once(kind: str) -> None:
    rng = np.random.default_rng(0)
    wave = rng.uniform(-1, 1, 4000).astype(np.float32)
    if kind == "16-bit":
        wave = np.rint(wave * 32767).astype(np.float32) / np.float32(32768)
    elif kind == "beyond full scale":
        wave = np.rint(wave * 4).astype(np.float32)
    reads = []

    def read(clip: Clip) -> np.ndarray:
        reads.append(clip.key)
        return wave

    cached = AudioTextDataset(
        "d", {"s": [Clip("a", ("a",), None)]}, read=read, read_rate=16_000, cache=True
    )
    clip = cached.clips("s")[0]
    for _ in range(3):
        loaded = cached.read_with(READER).load(clip)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, wave)
    assert reads == ["a"]


def test_without_the_cache_every_load_reads() -> None:
    reads = []

    def read(clip: Clip) -> np.ndarray:
        reads.append(clip.key)
        return np.zeros(4000, np.float32)

    plain = AudioTextDataset("d", {"s": [Clip("a", ("a",), None)]}, read=read, read_rate=16_000)
    for _ in range(2):
        plain.read_with(READER).load(plain.clips("s")[0])
    assert reads == ["a", "a"]


def test_load_refuses_a_clip_too_short_to_encode() -> None:
    short = AudioTextDataset(
        "d",
        {"s": [Clip("a", ("a",), None)]},
        read=lambda clip: np.zeros(100, np.float32),
        read_rate=16_000,
    )
    with pytest.raises(ValueError, match="d clip 'a': lasts 0.006 s"):
        short.read_with(READER).load(short.clips("s")[0])
