"""Splits that are drawn by recording."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.splitting import (
    check_no_drawing,
    draw_splits,
    recording_in_name,
)
from atr_moco_plugin.data.sets.folder import FolderConfig
from atr_moco_plugin.errors import InputError

SHARES = {"test": 0.1, "valid": 0.1}


def clip(key: str, label: str | None = None, source: object = None) -> Clip:
    return Clip(key, ("text",), source, label=label)


@pytest.mark.parametrize(
    ("key", "recording"),
    [
        ("dog/1-100032-A-0.ogg", "Freesound 100032"),
        ("100032-3-0-12.wav", "Freesound 100032"),
        ("100032__user__a-title.wav", "Freesound 100032"),
        ("Y7fmOlUlwoNg_30.wav", "YouTube 7fmOlUlwoNg"),
        ("7fmOlUlwoNg_30_40.wav", "YouTube 7fmOlUlwoNg"),
        ("day/street_part2.wav", "day/street"),
        ("street-Chunk_03.wav", "street"),
        ("street seg 4.wav", "street"),
        # Numbers tell takes of one class apart, which are recordings of their own.
        ("dog_barking_1.wav", None),
        ("DogBarking1_2.wav", None),
        ("dog_01.wav", None),
        ("rain.wav", None),
        ("dog/100032.wav", None),
    ],
)
def test_the_recording_in_a_name(key: str, recording: str | None) -> None:
    assert recording_in_name(clip(key)) == recording


@given(
    st.lists(st.tuples(st.sampled_from(["dog", "rain", "siren"]), st.integers(0, 30)), min_size=1),
    st.integers(0, 5),
)
def test_no_recording_is_in_two_splits_and_order_does_not_matter(
    pairs: list[tuple[str, int]], seed: int
) -> None:
    clips = [
        clip(f"{label}/{source}__u__{number}.wav", label)
        for number, (label, source) in enumerate(pairs)
    ]
    drawn = draw_splits(clips, {}, SHARES, seed)
    split_of: dict[str, str] = {}
    for (_, source), split in zip(pairs, drawn.splits, strict=True):
        assert split_of.setdefault(str(source), split) == split
    assert drawn.recordings == len({source for _, source in pairs})
    backwards = draw_splits(clips[::-1], {}, SHARES, seed)
    assert backwards.splits == drawn.splits[::-1]
    # Every class keeps something to train on.
    assert {label for label, _ in pairs} == {
        label for (label, _), split in zip(pairs, drawn.splits, strict=True) if split == "train"
    }


def test_every_class_is_in_every_split_and_shares_are_kept() -> None:
    clips = [clip(f"{label}/{n}.wav", label) for label in "abcd" for n in range(30)]
    drawn = draw_splits(clips, {}, SHARES, 0)
    assert Counter(drawn.splits) == {"train": 96, "valid": 12, "test": 12} and drawn.thin == []
    assert all(
        {s for c, s in zip(clips, drawn.splits, strict=True) if c.label == label}
        == {"train", "valid", "test"}
        for label in "abcd"
    )
    thin = draw_splits([*clips, clip("e/1.wav", "e"), clip("e/2.wav", "e")], {}, SHARES, 0)
    assert thin.thin == ["e"]


def test_what_a_table_says_comes_before_names() -> None:
    clips = [clip(f"{n}.wav") for n in range(40)]
    drawn = draw_splits(clips, {f"{n}.wav": f"r{n // 2}" for n in range(40)}, SHARES, 0)
    assert drawn.recordings == 20 and drawn.example == ("1.wav", "r0")
    assert all(drawn.splits[n] == drawn.splits[n + 1] for n in range(0, 40, 2))


def test_parts_of_a_file_and_equal_files_are_one_recording(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"{n}.wav").write_bytes(bytes([n // 2 + 1]) * 9000)
    equal = [clip(str(n), source=str(tmp_path / f"{n}.wav")) for n in range(12)]
    parts = [
        clip(f"part{n}", source=Segment(str(tmp_path / "long.wav"), n, n + 1)) for n in range(6)
    ]
    drawn = draw_splits([*equal, *parts], {}, {"valid": 0.3}, 0)
    assert drawn.recordings == 7 and len(set(drawn.splits[12:])) == 1
    assert all(drawn.splits[n] == drawn.splits[n + 1] for n in range(0, 12, 2))


def test_a_number_alone_says_of_no_recording() -> None:
    clips = [clip(f"{label}/{n:04}.wav", label) for label in "abc" for n in range(10)]
    drawn = draw_splits([*clips, clip("d/1-7-A-0.wav", "d")], {}, SHARES, 0)
    assert drawn.recordings == 31 and drawn.example is None
    assert recording_in_name(clip("dog/0001.wav")) is recording_in_name(clip("0000.wav")) is None


def test_a_number_is_of_the_sound_that_another_name_is_certain_of() -> None:
    clips = [clip(f"{n}.wav") for n in range(100_000, 100_040)]
    clips += [clip(f"{n}__user__dog.wav") for n in range(100_000, 100_040)]
    drawn = draw_splits(clips, {}, SHARES, 0)
    assert drawn.recordings == 40 and drawn.splits[:40] == drawn.splits[40:]
    # 0007 counts the files of a folder, and two equal numbers say nothing of each other.
    other = ["0100000.wav", "b/1-100001-A-0.wav", "a/200000.wav", "b/200000.wav"]
    assert draw_splits([*clips, *map(clip, other)], {}, SHARES, 0).recordings == 43


def test_splits_of_files_that_are_called_by_numbers_stay_as_they_were() -> None:
    """Where no two have one number: runs were trained on these."""
    clips = [clip(f"{n}.wav") for n in range(100_000, 100_040)]
    drawn = draw_splits(clips, {}, SHARES, 0)
    held_out = {
        split: [c.key for c, its in zip(clips, drawn.splits, strict=True) if its == split]
        for split in SHARES
    }
    assert held_out == {
        "test": ["100011.wav", "100015.wav", "100024.wav", "100038.wav"],
        "valid": ["100005.wav", "100007.wav", "100014.wav", "100023.wav"],
    }


def test_a_share_of_none_makes_no_class_thin() -> None:
    clips = [clip(f"{label}/{n}.wav", label) for label in "ab" for n in range(20)]
    assert draw_splits(clips, {}, {"test": 0, "valid": 0.2}, 0).thin == []
    assert draw_splits(clips, {}, {"test": 0, "valid": 0}, 0).thin == []
    few = [*clips, clip("c/1.wav", "c")]
    assert draw_splits(few, {}, {"test": 0, "valid": 0.2}, 0).thin == ["c"]


def test_a_seed_is_shown_as_it_is() -> None:
    with pytest.raises(InputError, match="sounds: has splits .*`seed` is 1234567: leave"):
        check_no_drawing(Path("sounds"), FolderConfig(seed=1234567), "valid_fraction", "seed")
