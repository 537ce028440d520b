"""Pairs from Python as a data set."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.pairs import open_pairs

RATE = 16_000


def noise(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(number).uniform(-0.5, 0.5, 4_000).astype(np.float32)


def many(count: int = 20) -> list[Any]:
    return [((noise(number), RATE), f"noise {number}") for number in range(count)]


def test_every_form_of_a_sound_is_the_same_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0), RATE, "FLOAT")
    forms = [
        {"array": noise(0), "sampling_rate": RATE},
        (noise(0), RATE),
        (noise(0), np.int64(RATE)),
        {"array": noise(0), "sampling_rate": np.int64(RATE)},
        {"bytes": (tmp_path / "a.wav").read_bytes(), "path": None},
        (tmp_path / "a.wav").read_bytes(),
        str(tmp_path / "a.wav"),
    ]
    data = open_pairs([*many(), *((form, f"form {k}") for k, form in enumerate(forms))])
    data.read_with(AudioReader(RATE))
    clips = [clip for split in data.splits.values() for clip in split]
    wanted = [clip for clip in clips if any("form" in text for text in clip.captions)]
    for clip in wanted:
        assert np.array_equal(data.load(clip), noise(0))
    assert [len(clip.captions) for clip in wanted] == [8]


def test_equal_arrays_are_equal_whenever_they_are_given() -> None:
    one = open_pairs(many(12)).fingerprint()
    time.sleep(1.1)  # the clock of a file's header counts seconds
    assert open_pairs(many(12)).fingerprint() == one


def test_splits_are_drawn_where_they_are_not_given() -> None:
    data = open_pairs(many(40))
    sizes = {name: len(clips) for name, clips in data.splits.items()}
    assert sum(sizes.values()) == 40 and sizes["valid"] >= 2 and sizes["test"] >= 2
    assert open_pairs(many(40)).fingerprint() == data.fingerprint()
    drawn = {seed: open_pairs(many(40), seed=seed).fingerprint() for seed in (0, 2)}
    assert drawn[0] != drawn[2] == data.fingerprint()  # as `common.seed` has it
    own = [((noise(100 + k), RATE), f"other {k}") for k in range(3)]
    given = open_pairs(many(40), valid=own)
    assert [x for clip in given.clips("valid") for x in clip.captions] == [t for _, t in own]


def test_rows_of_datasets_are_read() -> None:
    datasets = pytest.importorskip("datasets")
    rows = []
    for number in range(12):
        content = io.BytesIO()
        soundfile.write(content, noise(number), RATE, format="WAV")
        audio = {"bytes": content.getvalue(), "path": None}
        rows.append({"audio": audio, "text": f"noise {number}"})
    table = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    data = open_pairs(table)
    assert sum(map(len, data.splits.values())) == 12


def test_every_caption_of_a_row_is_read() -> None:
    rows = [
        {"audio": audio, "caption": text, "caption_2": f"{text} again"} for audio, text in many()
    ]
    rows[0] |= {"sentence": rows[0]["caption"]}  # said twice is said once
    data = open_pairs(rows)
    clips = [clip for its in data.splits.values() for clip in its]
    assert all(len(clip.captions) == 2 for clip in clips)


def two_files(tmp_path: Path, row: dict[str, object]) -> list[Any]:
    """Pairs whose last one has a row with the files ``A`` and ``B``."""
    for number, name in enumerate("AB"):
        soundfile.write(tmp_path / f"{name}.wav", noise(90 + number), RATE)
    files = {name: str(tmp_path / f"{name}.wav") for name in "AB"}
    return [*many(), {key: files.get(str(value), value) for key, value in row.items()}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audio": "A", "file": "B", "caption": "a dog"}, "several files, under audio, file"),
        (
            {"audio": "A", "caption": "a dog", "text": "a siren"},
            "captions under caption, text, of which text would not be read",
        ),
        (
            {"audio": "A", "text": "a dog", "sentence": "rain"},
            "captions under text, sentence, of which sentence would not be read",
        ),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_pairs(two_files(tmp_path, row))


@pytest.mark.parametrize(
    "more",
    [
        {"file": "A"},
        {"file_name": "A.wav"},  # as it is in the folder of its table
        {"caption_score": 0.5, "has_caption": True, "caption_tokens": [1, 2]},
        {"text": "", "sentence": "A dog."},
        {"text": math.nan, "caption_2": math.nan},  # of a table of pandas
    ],
)
def test_what_else_is_in_a_row_is_no_matter(tmp_path: Path, more: dict[str, object]) -> None:
    data = open_pairs(two_files(tmp_path, {"audio": "A", "caption": "a dog", **more}))
    clips = [clip for its in data.splits.values() for clip in its]
    assert ("a dog",) in [clip.captions for clip in clips]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (many(3), "There are 3 different sounds"),
        ([(audio, "noise") for audio, _ in many()], "have the caption 'noise'"),
        ([*many(), ("no/such.wav", "a dog")], "Pair 20 of train: there is no sound file"),
        ([*many(), (noise(1), "a dog")], "Pair 20 of train: an array says nothing of its sampl"),
        ([*many(), ((noise(1), 16_000.5), "a dog")], "20 of train: its sampling rate is 16000.5"),
        ([*many(), ((noise(1), np.int64(5)), "a dog")], "20 of train: its sampling rate is "),
        ([*many(), ((noise(1), RATE), " . ")], "Pair 20 of train has no caption with a word"),
        ([*many(), ((noise(1), RATE), 5)], "has a caption of the type int"),
        ([*many(), {"sound": 1}], "Pair 20 of train has sound, expected a sound"),
        ([*many(), "dog.wav"], "Pair 20 of train is a str"),
        ("folder", "The pairs of train are a str"),
    ],
)
def test_what_is_no_pair_is_one_sentence(pairs: Any, message: str) -> None:
    with pytest.raises(InputError) as found:
        open_pairs(pairs)
    assert message in str(found.value)


def test_a_sound_in_two_splits_is_refused() -> None:
    with pytest.raises(InputError, match="is in the pairs of train and of valid"):
        open_pairs(many(), valid=many(2))


def test_one_file_under_other_names_is_one_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100), RATE, "FLOAT")
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    (tmp_path / "copy.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    same: list[Any] = [
        str(tmp_path / "a.wav"), f"{tmp_path}/./a.wav", tmp_path / "link.wav",
        tmp_path / "copy.wav", (tmp_path / "a.wav").read_bytes(), (noise(100), RATE),
    ]  # fmt: skip
    pairs = [(sound, f"text {number}") for number, sound in enumerate(same)]
    data = open_pairs([*many(), *pairs], valid=[], test=[])
    (joined,) = (clip for clip in data.splits["train"] if "text 0" in clip.captions)
    assert set(joined.captions) == {f"text {number}" for number in range(len(same))}
    assert len(data.splits["train"]) == 21
    for sound in same[1:]:
        with pytest.raises(InputError, match="is in the pairs of train and of test"):
            open_pairs([*many(), pairs[0]], test=[(sound, "again")])
