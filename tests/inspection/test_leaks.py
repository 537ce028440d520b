"""What two data sets have in common: audio, ids and captions, and what is to be left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import open_files, recording, write

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.recording_ids import RecordingId, recording_ids
from atr_moco_plugin.inspection.audio import inspect_audio
from atr_moco_plugin.inspection.findings import Finding
from atr_moco_plugin.inspection.leaks import leaks


def summary(findings: list[Finding]) -> list[tuple[str, str, tuple[str, ...], bool]]:
    return [
        (f.kind, f.key, tuple("/".join(other) for other in f.others), f.exclude) for f in findings
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "exclude"),
    [
        ("train", "test", True),
        ("train", "valid", True),
        ("train", "train", False),
        ("test", "train", False),  # the other data set is to leave it out
        ("test", "test", False),
    ],
)
def test_audio_is_to_be_left_out_where_it_is_trained_on_and_evaluated_elsewhere(
    tmp_path: Path, mine: str, theirs: str, exclude: bool
) -> None:
    for seed in range(3):
        write(tmp_path / f"{seed}.wav", recording(seed))
    write(tmp_path / "copy.ogg", 0.5 * recording(1)[8000:])
    own = open_files(tmp_path, [("train", "0.wav", "Rain"), (mine, "1.wav", "A dog")], "own")
    other = open_files(
        tmp_path, [(theirs, "copy.ogg", "Barks"), ("train", "2.wav", "Wind")], "other"
    )
    audio, its_audio = inspect_audio(own)[0], inspect_audio(other)[0]
    findings = leaks(own, audio, {"the other": (other, its_audio)})
    assert summary(findings) == [
        ("leak of audio", "1.wav", (f"the other/{theirs}/copy.ogg",), exclude)
    ]
    assert f"'copy.ogg' of the other, {theirs}" in findings[0].what


def test_another_part_of_a_clip_that_leaks_is_no_leak(tmp_path: Path) -> None:
    parts = [recording(seed) for seed in (1, 2, 3)]
    write(tmp_path / "all.wav", np.concatenate(parts))
    for name, wave in zip(("a.wav", "b.wav", "c.wav"), parts, strict=True):
        write(tmp_path / name, wave)
    rows = [("train", "a.wav", "A"), ("train", "b.wav", "B"), ("train", "all.wav", "All")]
    own = open_files(tmp_path, rows, "own")
    other = open_files(tmp_path, [("test", "c.wav", "C"), ("train", "b.wav", "B")], "other")
    findings = leaks(own, inspect_audio(own)[0], {"other": (other, inspect_audio(other)[0])})
    audio = [finding for finding in findings if finding.kind == "leak of audio"]
    assert {finding.key: finding.exclude for finding in audio} == {"b.wav": False, "all.wav": True}


def test_each_of_two_equal_clips_leaks(tmp_path: Path) -> None:
    wave = recording(1)
    for name, level in (("a.wav", 1.0), ("b.wav", 1.0), ("theirs.wav", 0.5)):
        write(tmp_path / name, level * wave)
    own = open_files(tmp_path, [("train", "a.wav", "A dog"), ("train", "b.wav", "Dogs")], "own")
    other = open_files(tmp_path, [("test", "theirs.wav", "Barks")], "other")
    findings = leaks(own, inspect_audio(own)[0], {"other": (other, inspect_audio(other)[0])})
    assert summary(findings) == [
        ("leak of audio", key, ("other/test/theirs.wav",), True) for key in ("a.wav", "b.wav")
    ]


def data_set(name: str, **splits: list[tuple[str, str]]) -> AudioTextDataset:
    """Clips without audio: split to keys with captions."""
    clips = {s: [Clip(key, (text,), None) for key, text in own] for s, own in splits.items()}
    return AudioTextDataset(name, clips)


def test_captions_are_compared_after_normalisation() -> None:
    own = data_set("own", train=[("a", "A dog barks!"), ("b", "Rain")])
    other = data_set("other", test=[("x", "a dog barks"), ("y", "Wind")])
    (finding,) = leaks(own, [], {"other": (other, [])})
    assert finding.kind == "leak of captions"
    assert (finding.key, finding.others, finding.exclude) == ("a", (("other", "test", "x"),), False)
    assert "'A dog barks!'" in finding.what


@pytest.mark.parametrize(
    ("mine", "theirs", "what", "exclude"),
    [
        ("7fmOlUlwoNg", "Y7fmOlUlwoNg.wav", "the video 7fmOlUlwoNg on YouTube is in", True),
        ("7fmOlUlwoNg_30", "7fmOlUlwoNg_30.000_40.000", "the same place of the video", True),
        ("7fmOlUlwoNg_30", "7fmOlUlwoNg_30000_40000", "the same place of the video", True),
        ("7fmOlUlwoNg_30", "7fmOlUlwoNg_50", "another place of the video", False),
        ("1-100032-A-0", "100032__user__dog.wav", "the sound 100032 on Freesound is", True),
        ("100032-3-0-1", "fold/2-100032-B-0", "the sound 100032 on Freesound is in", True),
        ("fsd/100032", "100032-3-0-1.wav", "if it is one, is in", False),
        ("12345", "Y7fmOlUlwoNg", None, False),
        ("1-100032-A-0", "1-100038-A-14", None, False),
        ("rain.wav", "rain.wav", None, False),
    ],
)
def test_ids_in_names(mine: str, theirs: str, what: str | None, exclude: bool) -> None:
    own = data_set("own", train=[(mine, "Rain")])
    other = data_set("other", test=[(theirs, "Wind")])
    findings = leaks(own, [], {"other": (other, [])})
    if what is None:
        assert findings == []
        return
    (finding,) = findings
    assert finding.kind == "leak of ids"
    assert what in finding.what[0].lower() + finding.what[1:]
    assert finding.others == (("other", "test", theirs),)
    assert finding.exclude == exclude


def test_ids_come_from_the_key_and_from_the_file() -> None:
    clip = Clip("dogs/17", ("A dog",), "/data/audio/Y7fmOlUlwoNg.flac")
    assert recording_ids(clip) == [RecordingId("YouTube", "7fmOlUlwoNg")]
    assert recording_ids(Clip("17", ("A dog",), None)) == []


def test_data_sets_without_anything_in_common(tmp_path: Path) -> None:
    own, other = data_set("own", train=[("a", "Rain")]), data_set("other", test=[("a", "Wind")])
    assert leaks(own, [], {"other": (other, [])}) == []
    assert leaks(own, [], {}) == []
