"""Which rows are one clip, and which recordings are in two splits: in every layout."""

from __future__ import annotations

import json
import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.audiocaps import AudioCapsConfig, open_audiocaps
from atr_moco_plugin.data.sets.clotho import ClothoConfig, open_clotho
from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.tar_shards import WebdatasetConfig, open_webdataset
from atr_moco_plugin.data.sets.wavcaps import WavCapsConfig, open_wavcaps
from atr_moco_plugin.errors import InputError

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_audio: Write) -> Path:
    """Three recordings, the first under four other names, and a copy of it."""
    for name in ("a.wav", "b.wav", "c.wav"):
        write_audio(tmp_path / "audio" / name)
    folder = tmp_path / "audio"
    (folder / "soft.wav").symlink_to("a.wav")
    os.link(folder / "a.wav", folder / "hard.wav")
    (tmp_path / "link").symlink_to(folder)
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    return folder


SPELLINGS = [
    "./a.wav", "../audio/a.wav", "{root}/a.wav", "../link/a.wav", "soft.wav", "hard.wav", "a",
]  # fmt: skip


@pytest.fixture
def opened(root: Path, write_table: Write) -> Callable[..., AudioTextDataset]:
    def opened(
        columns: tuple[str, ...], *rows: tuple[str, ...], **options: Any
    ) -> AudioTextDataset:
        cells = [[cell.format(root=root) for cell in row] for row in rows]
        path = write_table(root / "m.csv", columns, cells)
        return open_manifest(ManifestConfig(path, **options))

    return opened


def content(data: AudioTextDataset) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.captions for clips in data.splits.values() for clip in clips}


def test_two_columns_of_audio_must_agree(opened: Callable[..., Any]) -> None:
    """The first was taken without a word."""
    columns = ("file_name", "audio", "caption")
    with pytest.raises(InputError, match=r"m\.csv: row 2 names two files, 'a.wav' and 'b.wav'"):
        opened(columns, ("c.wav", "./c.wav", "one"), ("a.wav", "b.wav", "two"))
    rows = [("a.wav", "A title.wav", "one"), ("", "b.wav", "two"), ("c", "", "three")]
    data = opened(columns, *rows)
    assert content(data) == {"a.wav": ("one",), "b.wav": ("two",), "c": ("three",)}


def test_a_name_without_its_folders_beside_the_whole_path(
    root: Path, opened: Callable[..., Any], write_audio: Write
) -> None:
    for name in ("dogs/001.wav", "cats/001.wav"):
        write_audio(root / name)
    rows = [("001.wav", "dogs/001.wav", "one"), ("001.wav", "cats/001.wav", "two")]
    assert content(opened(("file_name", "path", "caption"), *rows)) == {
        "dogs/001.wav": ("one",),
        "cats/001.wav": ("two",),
    }


def test_split_and_subset_must_agree(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "caption", "split", "subset")
    with pytest.raises(InputError, match="row 2 is of the split 'train' and of the subset 'eval'"):
        opened(columns, ("a.wav", "one", "train", "balanced"), ("b.wav", "two", "train", "eval"))
    data = opened(columns, ("a.wav", "one", "dev", "train"), ("b.wav", "two", "val", "validation"))
    assert list(data.splits) == ["valid", "dev"]


@pytest.mark.parametrize("column", ["id", "key", "speaker", "song", "class"])
def test_ids_of_other_things_join_nothing(opened: Callable[..., Any], column: str) -> None:
    rows = [("a.wav", "one", "C#m"), ("b.wav", "two", "C#m"), ("a.wav", "three", "C#m")]
    data = opened(("file_name", "caption", column), *rows)
    assert content(data) == {"a.wav": ("one", "three"), "b.wav": ("two",)}


def test_an_id_of_one_clip_is_its_key_as_before(opened: Callable[..., Any]) -> None:
    rows = [("a.wav", "one", "17"), ("b.wav", "two", "4")]
    assert content(opened(("file_name", "caption", "id"), *rows)) == {"17": ("one",), "4": ("two",)}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_file_are_one_clip(opened: Callable[..., Any], spelling: str) -> None:
    rows = [("a.wav", "one"), ("b.wav", "two"), (spelling, "three")]
    data = opened(("file_name", "caption"), *rows)
    expected = {"a" if spelling == "a" else "a.wav": ("one", "three"), "b.wav": ("two",)}
    assert content(data) == expected
    reverse = opened(("file_name", "caption"), *rows[::-1])
    assert content(reverse).keys() == expected.keys()


@pytest.mark.parametrize("check_audio", [True, False])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_file_in_two_splits_are_refused(
    opened: Callable[..., Any], spelling: str, check_audio: bool
) -> None:
    rows = [("a.wav", "one", "train"), ("b.wav", "two", "train"), (spelling, "three", "test")]
    columns = ("file_name", "caption", "split")
    with pytest.raises(ValueError, match="1 clip is in both|1 recordings are in two splits"):
        opened(columns, *rows, check_audio=check_audio)
    data = opened(columns, *rows, check_audio=check_audio, allow_shared_audio=True)
    assert [len(clips) for clips in data.splits.values()] == [2, 1]
    assert data.counts["train"].shared_audio == data.counts["test"].shared_audio == 1
    assert "2 clips with audio that another split has" in data.summary()


def test_a_recording_that_may_be_in_two_splits_has_two_keys(opened: Callable[..., Any]) -> None:
    rows = [("a.wav", "one", "train"), ("a.wav", "two", "test"), ("a.wav", "three", "test")]
    data = opened(("file_name", "caption", "split"), *rows, allow_shared_audio=True)
    assert content(data) == {"a.wav": ("one",), "test/a.wav": ("two", "three")}


def test_a_copy_in_another_split_is_refused_with_both_rows(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "caption", "split")
    rows = [("a.wav", "one", "train"), ("copy.wav", "two", "test"), ("b.wav", "three", "test")]
    match = r"1 recordings are in two splits: .*/a.wav \('train', row 1\) and .*/copy.wav \('test'"
    with pytest.raises(ValueError, match=match):
        opened(columns, *rows)
    assert opened(columns, *rows, allow_shared_audio=True).counts["test"].shared_audio == 1


def test_a_copy_in_the_same_split_is_named_in_a_warning(opened: Callable[..., Any]) -> None:
    rows = [("a.wav", "one"), ("copy.wav", "two"), ("b.wav", "three")]
    with pytest.warns(UserWarning, match="1 clips have the same audio as another of their split"):
        data = opened(("file_name", "caption"), *rows)
    assert len(data.clips("train")) == 3 and data.counts["train"].same_audio == 1
    assert "1 clips with audio that another clip of the split has" in data.summary()


def test_silence_may_be_in_every_split(root: Path, opened: Callable[..., Any]) -> None:
    for name in ("x.wav", "y.wav", "z.wav"):
        soundfile.write(root / name, np.zeros(8_000), 16_000)
    rows = [("x.wav", "one", "train"), ("y.wav", "two", "test"), ("z.wav", "three", "test")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = opened(("file_name", "caption", "split"), *rows)
    assert len(content(data)) == 3


def test_segments_of_a_file_in_two_splits_are_refused(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "caption", "split", "start", "end")
    for other in ("a.wav", "copy.wav", "soft.wav"):
        rows = [("a.wav", "one", "train", "0", "0.2"), (other, "two", "test", "0.1", "0.3")]
        with pytest.raises(ValueError, match="1 recordings are in two splits: .* from 0 s to 0.2"):
            opened(columns, *rows)
        data = opened(columns, *rows, allow_shared_audio=True)
        assert data.counts["train"].shared_audio == data.counts["test"].shared_audio == 1


def test_segments_of_two_links_in_one_split(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "caption", "start", "end")
    rows = [("a.wav", "one", "0", "0.2"), ("hard.wav", "two", "0.1", "0.3")]
    rows += [("soft.wav", "three", "0", "0.2")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = opened(columns, *rows)
    assert content(data) == {"a.wav#t=0,0.2": ("one", "three"), "hard.wav#t=0.1,0.3": ("two",)}


def test_rows_of_one_clip_id_must_agree(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "caption", "clip_id")
    rows = [("a.wav", "one", "7"), ("b.wav", "two", "8"), ("a.wav", "three", "7")]
    assert content(opened(columns, *rows)) == {"7": ("one", "three"), "8": ("two",)}
    with pytest.raises(ValueError, match="row 1 and row 2 have the clip_id '7' and different aud"):
        opened(columns, ("a.wav", "one", "7"), ("b.wav", "two", "7"))
    for other in ("copy.wav", "soft.wav", "./a.wav"):
        data = opened(columns, ("a.wav", "one", "7"), (other, "two", "7"))
        assert content(data) == {"7": ("one", "two")}
    with pytest.raises(ValueError, match="in both 'train' and 'test': '7'"):
        opened((*columns, "split"), ("a.wav", "x", "7", "train"), ("b.wav", "y", "7", "test"))


@pytest.mark.parametrize("other", ["a.wav", "./a.wav", "soft.wav", "hard.wav"])
def test_a_file_with_two_clip_ids_is_refused(opened: Callable[..., Any], other: str) -> None:
    rows = [("a.wav", "one", "7"), ("b.wav", "two", "9"), (other, "three", "8")]
    with pytest.raises(ValueError, match="row 1 and .*row 3 .*have the clip_id '7' and '8'"):
        opened(("file_name", "caption", "clip_id"), *rows)


def test_segments_of_one_clip_id_are_refused(opened: Callable[..., Any]) -> None:
    rows = [("a.wav", "one", "7", "0", "0.2"), ("a.wav", "two", "7", "0.1", "0.3")]
    with pytest.raises(ValueError, match="have the clip_id '7' and different audio, .* from 0 s"):
        opened(("file_name", "caption", "clip_id", "start", "end"), *rows)


def test_rows_without_a_clip_id_join_their_file(opened: Callable[..., Any]) -> None:
    rows = [("a.wav", "x", "7"), ("a.wav", "y", "")]
    for order in (rows, rows[::-1]):
        data = opened(("file_name", "caption", "clip_id"), *order)
        assert content(data).keys() == {"7"}


def test_two_starts_in_a_video_of_a_manifest(root: Path, opened: Callable[..., Any]) -> None:
    columns = ("youtube_id", "start_time", "caption", "id")
    rows = [("abcdefghijk", "30", "one", "1"), ("abcdefghijk", "50", "two", "2")]
    (root / "a.wav").rename(root / "Yabcdefghijk.wav")
    with pytest.raises(ValueError, match="row 1: a file 'Yabcdefghijk' is there, which may be"):
        opened(columns, *rows)
    (root / "Yabcdefghijk.wav").rename(root / "abcdefghijk_30.wav")
    (root / "b.wav").rename(root / "Yabcdefghijk_50.000_60.000.wav")
    data = opened(columns[:3], *(row[:3] for row in rows))
    assert content(data) == {"Yabcdefghijk_30": ("one",), "Yabcdefghijk_50": ("two",)}
    one = opened(columns[:3], ("abcdefghijk", "30", "one"), ("abcdefghijk", "30.0", "two"))
    assert content(one) == {"Yabcdefghijk": ("one", "two")}


def test_a_start_in_a_video_is_no_place_in_the_file(opened: Callable[..., Any]) -> None:
    columns = ("file_name", "youtube_id", "start_time", "duration", "caption")
    data = opened(columns, ("a.wav", "abcdefghijk", "130", "10", "one"))
    assert content(data) == {"a.wav": ("one",)}
    with pytest.raises(ValueError, match="row 2 and row 1 are of one file, 'a.wav', and name two"):
        opened(columns, *(("a.wav", "abcdefghijk", start, "10", "x") for start in ("130", "140")))


def test_equal_names_in_two_folders_of_clotho(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    for folder in ("dogs", "cats"):
        write_audio(tmp_path / "development" / folder / "001.wav")
    path = tmp_path / "clotho_captions_development.csv"
    rows = [("dogs/001.wav", "one"), ("cats/001.wav", "two"), ("./dogs/001.wav", "three")]
    write_table(path, ("file_name", "caption_1"), rows)
    data = open_clotho(ClothoConfig(tmp_path, strict=True))
    assert content(data) == {
        "train/dogs/001.wav": ("one", "three"),
        "train/cats/001.wav": ("two",),
    }
    write_table(path, ("file_name", "caption_1"), [("001.wav", "which?")])
    with pytest.raises(ValueError, match="'001.wav' may be development/cats/001.wav or develop"):
        open_clotho(ClothoConfig(tmp_path))
    (tmp_path / "development" / "dogs" / "001.wav").unlink()
    write_table(path, ("file_name", "caption_1"), rows)
    data = open_clotho(ClothoConfig(tmp_path))
    assert content(data) == {"train/cats/001.wav": ("two",)} and data.missing == 1


def test_one_stem_with_two_suffixes_is_two_recordings(
    tmp_path: Path, write_audio: Write, write_table: Write
) -> None:
    """They were one clip with the captions of both."""
    rows = [("rain.wav", "one"), ("rain.flac", "two")]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), rows)
    for name in ("rain.wav", "rain.flac"):
        write_audio(tmp_path / name)
    expected = {"rain.wav": "one", "rain.flac": "two"}
    for data in (open_clotho(ClothoConfig(tmp_path)), open_audiocaps(AudioCapsConfig(tmp_path))):
        found = {Path(clip.source).name: clip.captions for clip in data.clips("train")}
        assert found == {name: (text,) for name, text in expected.items()}
    (tmp_path / "rain.flac").unlink()  # then both mean the one that is there
    for data in (open_clotho(ClothoConfig(tmp_path)), open_audiocaps(AudioCapsConfig(tmp_path))):
        assert [clip.captions for clip in data.clips("train")] == [("one", "two")]


@pytest.mark.parametrize("layout", ["audiocaps", "manifest"])
def test_a_file_of_two_videos_is_refused(
    tmp_path: Path, write_audio: Write, write_table: Write, layout: str
) -> None:
    """Their captions were joined."""
    rows = [("a.wav", f"abcdefghij{end}", "30", end) for end in "kz"]
    table = write_table(
        tmp_path / "train.csv", ("file_name", "youtube_id", "start_time", "caption"), rows
    )
    write_audio(tmp_path / "a.wav")
    with pytest.raises(InputError, match="row 2 and row 1 are of one file, 'a.wav', and name two"):
        if layout == "audiocaps":
            open_audiocaps(AudioCapsConfig(tmp_path))
        else:
            open_manifest(ManifestConfig(table))


def write_json(path: Path, *rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": rows}))


def test_one_number_in_two_sources_of_a_wavcaps_file(tmp_path: Path, write_audio: Write) -> None:
    path = tmp_path / "all.json"
    sources = ("FreeSound", "BBC_Sound_Effects")
    rows = [{"id": "17", "caption": f"of {s}", "source": s} for s in sources]
    write_json(path, *rows, {"id": "3", "caption": "other", "source": "FreeSound"})
    write_audio(tmp_path / "FreeSound_flac" / "3.flac")
    for source in sources:
        write_audio(tmp_path / f"{source}_flac" / "17.flac")
    data = open_wavcaps(WavCapsConfig(tmp_path, strict=True))
    assert content(data) == {
        "FreeSound/17": ("of FreeSound",),
        "BBC_Sound_Effects/17": ("of BBC_Sound_Effects",),
        "3": ("other",),
    }
    assert {Path(clip.source).parent.name for clip in data.clips("train")} == {
        "FreeSound_flac",
        "BBC_Sound_Effects_flac",
    }
    for source in sources:
        (tmp_path / f"{source}_flac" / "17.flac").unlink()
    write_audio(tmp_path / "17.flac")
    with pytest.raises(ValueError, match=r"17.flac may be the audio of .*row 1 .* or of .*row 2"):
        open_wavcaps(WavCapsConfig(tmp_path))


def test_a_title_of_wavcaps_is_no_file_where_audio_is_given(
    tmp_path: Path, write_audio: Write
) -> None:
    for name in ("a.wav", "rain.wav"):
        write_audio(tmp_path / name)
    row = {"id": "1", "file_name": "rain.wav", "audio": "a.wav", "caption": "one"}
    write_json(tmp_path / "all.json", row)
    (clip,) = open_wavcaps(WavCapsConfig(tmp_path)).clips("train")
    assert clip.source == str(tmp_path / "a.wav")


def test_ids_and_files_of_wavcaps(tmp_path: Path, write_audio: Write) -> None:
    for name in ("x.wav", "y.wav"):
        write_audio(tmp_path / "audio" / name)
    path = tmp_path / "all.json"
    write_json(
        path,
        {"id": "1", "audio": "audio/x.wav", "caption": "one"},
        {"id": "1", "audio": "audio/y.wav", "caption": "two"},
        {"id": "2", "audio": "./audio/x.wav", "caption": "three"},
        {"id": "9", "audio": "audio/y.wav", "caption": "four", "start": 0, "end": 0.2},
    )
    assert content(open_wavcaps(WavCapsConfig(tmp_path))) == {
        "audio/x.wav": ("one", "three"),
        "1": ("two",),
        "9": ("four",),
    }


def test_json_files_of_one_name(tmp_path: Path, write_audio: Write) -> None:
    for folder in ("one", "two"):
        write_json(tmp_path / folder / "train.json", {"id": 1, "caption": folder})
        write_audio(tmp_path / folder / "1.wav")
    assert content(open_wavcaps(WavCapsConfig(tmp_path, strict=True))) == {
        "one/train/1": ("one",),
        "two/train/1": ("two",),
    }


def test_parts_of_a_file_stay_together_in_validation(tmp_path: Path, write_audio: Write) -> None:
    rows = []
    for number in range(10):
        write_audio(tmp_path / f"{number}.wav", seconds=1.0)
        rows += [
            {"id": number, "caption": f"sound {number}", "start": at, "end": at + 0.4}
            for at in (0, 0.5)
        ]
    write_json(tmp_path / "all.json", *rows)
    data = open_wavcaps(WavCapsConfig(tmp_path, valid_fraction=0.3))
    assert [len(data.clips(split)) for split in ("train", "valid")] == [14, 6]


def test_one_file_in_two_folds_or_classes_of_esc50(tmp_path: Path, write_audio: Write) -> None:
    index = tmp_path / "meta" / "esc50.csv"
    index.parent.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        write_audio(tmp_path / "audio" / name)
    head = "filename,fold,category,src_file"
    rows = ["a.wav,4,dog,1", "b.wav,1,dog,2", "c.wav,2,rain,3"]
    index.write_text("\n".join([head, *rows, rows[0]]))
    assert len(content(open_esc50(Esc50Config(tmp_path, valid_fraction=0)))) == 3
    for row, what in (("a.wav,1,dog,1", "fold '4' and '1'"), ("./a.wav,4,rain,1", "category 'd")):
        index.write_text("\n".join([head, *rows, row]))
        with pytest.raises(ValueError, match=f"rows 1 and 4 are of one file, .* have the {what}"):
            open_esc50(Esc50Config(tmp_path))
    index.write_text("\n".join([head, *rows]))
    (tmp_path / "audio" / "b.wav").write_bytes((tmp_path / "audio" / "a.wav").read_bytes())
    with pytest.raises(ValueError, match="esc50: 1 recordings are in two splits: .*b.wav"):
        open_esc50(Esc50Config(tmp_path, valid_fraction=0))
    data = open_esc50(Esc50Config(tmp_path, valid_fraction=0, allow_shared_audio=True))
    assert data.counts["test"].shared_audio == 1


def test_one_recording_in_two_shards(tmp_path: Path, write_audio: Write) -> None:
    paths = {name: write_audio(tmp_path / f"{name}.flac") for name in "abc"}

    def shard(place: str, *names: str) -> None:
        path = tmp_path / "shards" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for key, name in enumerate(names):
                archive.add(paths[name], f"{key}.flac")
                (tmp_path / "text.json").write_text(json.dumps({"text": f"text {key}"}))
                archive.add(tmp_path / "text.json", f"{key}.json")

    root = WebdatasetConfig(tmp_path / "shards")
    shard("train/0.tar", "a", "b")
    shard("train/1.tar", "c", "a")
    with pytest.warns(UserWarning, match="1 clips have the same audio .*0.tar, member 0.flac"):
        assert len(open_webdataset(root).clips("train")) == 4
    shard("train/1.tar", "c")
    shard("test/0.tar", "a")
    with pytest.raises(ValueError, match=r"two splits: .*0.tar, member 0.flac \('test'\) and"):
        open_webdataset(root)
    allowed = WebdatasetConfig(root.root, allow_shared_audio=True)
    assert open_webdataset(allowed).counts["test"].shared_audio == 1
    (root.root / "test" / "0.tar").unlink()
    (root.root / "test" / "0.tar").symlink_to("../train/0.tar")
    with pytest.raises(ValueError, match="2 recordings are in two splits"):
        open_webdataset(root)


rows = st.lists(
    st.tuples(
        st.sampled_from(["a.wav", "b.wav", "sub/a.wav"]),
        st.sampled_from([("", ""), ("0", "0.2"), ("0.1", "0.3")]),
        st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=2, unique=True),
    ),
    min_size=1,
    max_size=6,
)
spell = st.sampled_from(["{}", "./{}", "sub/../{}", "{root}/{}", "../audio/{}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("joining") / "audio"
    (root / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.wav", "b.wav", "sub/a.wav")):
        wave = np.random.default_rng(seed).uniform(-0.1, 0.1, 8_000)
        soundfile.write(root / name, wave, 16_000)
    return root


@settings(max_examples=40, deadline=None)
@given(rows, st.data())
def test_the_clips_do_not_depend_on_order_rows_and_spelling(
    folder: Path, items: list[tuple[str, tuple[str, str], list[str]]], data: st.DataObject
) -> None:
    """Permuting rows, a row for each caption, and other spellings of the paths."""

    def clips(lines: list[dict[str, object]]) -> dict[str, tuple[Any, list[str]]]:
        path = folder / "m.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        opened = open_manifest(ManifestConfig(path)).clips("train")
        return {clip.key: (str(clip.source)[-30:], sorted(set(clip.captions))) for clip in opened}

    plain = [
        {"audio": name, "start": start, "end": end, "captions": texts}
        for name, (start, end), texts in items
    ]
    other = []
    for row in plain:
        name = data.draw(spell).format(row["audio"], root=folder)
        if data.draw(st.booleans()):
            other += [{**row, "audio": name, "captions": [text]} for text in row["captions"]]
        else:
            other.append({**row, "audio": name})
    expected = clips(plain)
    assert len(expected) == len({(name, part) for name, part, _ in items})
    found = clips(data.draw(st.permutations(other)))
    assert {key: texts for key, (_, texts) in found.items()} == {
        key: texts for key, (_, texts) in expected.items()
    }
