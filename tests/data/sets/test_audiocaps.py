from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.audiocaps import (
    AudioCapsConfig,
    open_audiocaps,
    read_audiocaps_captions,
)
from atr_moco_plugin.data.summary import shared_captions
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import caption_id

READER = AudioReader(16_000)

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "captions" / "audiocaps"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real captions are not beside the repo")

LONG = ("audiocap_id", "youtube_id", "start_time", "caption")
WIDE = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
# Ids may begin with - and _ and look like numbers; the five rows of a clip are not adjacent.
TRAIN = [
    ("91139", "-9bnicOVtvk", "130", "A woman talks nearby as water pours"),
    ("58146", "_DGBjjwyaqE", "20", "Multiple clanging and clanking sounds"),
    ("11542", "00123456789", "80", "The wind is blowing, insects are singing, and rustling occurs"),
    ("11543", "12345678e10", "0", "Caf\u00e9 chatter"),
]
TEST_IDS = ("7fmOlUlwoNg", "Y6BJ455B1aA")
TEST = [
    (str(103549 - 10 * number - place), video, "30", f"Caption {number} of {video}")
    for number in range(5)
    for place, video in enumerate(TEST_IDS)
]
NAMINGS: dict[str, Callable[[tuple[str, ...]], str]] = {
    "Y": lambda row: f"Y{row[1]}.wav",
    "plain": lambda row: f"{row[1]}.wav",
    "start": lambda row: f"{row[1]}_{row[2]}.flac",
    "start as a float": lambda row: f"{row[1]}_{row[2]}.0.wav",
    "milliseconds": lambda row: f"{row[1]}_{1000 * int(row[2])}.flac",
    "start and end": lambda row: f"Y{row[1]}_{row[2]}.000_{int(row[2]) + 10}.000.ogg",
    "row": lambda row: f"{row[0]}.flac",
}
FOLDERS = {"split": "{split}", "waveforms": "waveforms/{split}", "audio": "audio", "root": ""}


@pytest.fixture
def build(
    write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> Callable[..., None]:
    def build(
        root: Path,
        *,
        naming: str = "Y",
        folder: str = "split",
        csv_names: tuple[str, str] = ("train.csv", "test.csv"),
        encoding: str = "utf-8",
    ) -> None:
        for split, name, rows in zip(("train", "test"), csv_names, (TRAIN, TEST), strict=True):
            write_table(root / name, LONG, rows, encoding=encoding)
            for row in rows:
                place = root / FOLDERS[folder].format(split=split)
                write_audio(place / NAMINGS[naming](row))

    return build


def captions(data: AudioTextDataset, split: str) -> dict[str, tuple[str, ...]]:
    return {clip.key: clip.captions for clip in data.clips(split)}


def assert_whole(data: AudioTextDataset) -> None:
    assert list(data.splits) == ["train", "test"]
    assert captions(data, "train") == {row[1]: (row[3],) for row in TRAIN}
    assert captions(data, "test") == {
        video: tuple(f"Caption {number} of {video}" for number in range(5)) for video in TEST_IDS
    }
    assert data.missing == 0
    assert data.seconds == pytest.approx(0.3 * 6, abs=0.01)
    for clip in (*data.clips("train"), *data.clips("test")):
        assert data.read_with(READER).load(clip).shape == (4800,)


@pytest.mark.parametrize("naming", NAMINGS)
def test_names_of_the_audio(tmp_path: Path, build: Callable[..., None], naming: str) -> None:
    build(tmp_path, naming=naming)
    assert_whole(open_audiocaps(AudioCapsConfig(tmp_path, strict=True)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_the_audio(tmp_path: Path, build: Callable[..., None], folder: str) -> None:
    build(tmp_path, folder=folder)
    assert_whole(open_audiocaps(AudioCapsConfig(tmp_path, strict=True)))


@pytest.mark.parametrize(
    "csv_names",
    [
        ("audiocaps_train.csv", "audiocaps_test.csv"),
        ("dataset/train.csv", "dataset/test.csv"),
        ("csv_files/train.csv", "csv_files/evaluation.csv"),
    ],
)
def test_names_of_the_captions_files(
    tmp_path: Path, build: Callable[..., None], csv_names: tuple[str, str]
) -> None:
    build(tmp_path, csv_names=csv_names, encoding="latin-1")
    assert_whole(open_audiocaps(AudioCapsConfig(str(tmp_path), strict=True)))


def test_captions_and_audio_in_two_places(tmp_path: Path, build: Callable[..., None]) -> None:
    build(tmp_path / "audio")
    for name in ("train.csv", "test.csv"):
        (tmp_path / "csv").mkdir(exist_ok=True)
        (tmp_path / "audio" / name).rename(tmp_path / "csv" / name)
    for config in (
        AudioCapsConfig(tmp_path / "audio", captions=tmp_path / "csv"),
        AudioCapsConfig(tmp_path / "csv", audio=tmp_path / "audio"),
        AudioCapsConfig(tmp_path),
    ):
        assert_whole(open_audiocaps(config))
    one = AudioCapsConfig(tmp_path / "audio", captions=tmp_path / "csv" / "test.csv")
    assert list(open_audiocaps(one).splits) == ["test"]


@pytest.mark.parametrize("name", ["val.csv", "valid.csv", "validation.csv", "audiocaps-val.csv"])
@pytest.mark.parametrize("folder", ["val", "valid", "validation", "waveforms/val"])
def test_validation_has_many_names(
    tmp_path: Path,
    write_audio: Callable[..., Path],
    write_table: Callable[..., Path],
    name: str,
    folder: str,
) -> None:
    write_table(tmp_path / name, LONG, TRAIN[:1])
    write_audio(tmp_path / folder / f"Y{TRAIN[0][1]}.wav")
    assert list(open_audiocaps(AudioCapsConfig(tmp_path)).splits) == ["valid"]


def test_wide_captions_give_the_same_clips(
    tmp_path: Path, build: Callable[..., None], write_table: Callable[..., Path]
) -> None:
    build(tmp_path, folder="waveforms")
    expected = open_audiocaps(AudioCapsConfig(tmp_path))
    train = [(f"Y{row[1]}.wav", row[3]) for row in TRAIN]
    test = [
        (f"Y{video}.wav", *(f"Caption {number} of {video}" for number in range(5)))
        for video in TEST_IDS
    ]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), train)
    write_table(tmp_path / "test.csv", WIDE, test)
    data = open_audiocaps(AudioCapsConfig(tmp_path, strict=True))
    assert_whole(data)
    assert data.fingerprint() == expected.fingerprint()

    listed = [(f"{name[1:-4]}_30.wav", str(list(texts))) for name, *texts in test]
    write_table(tmp_path / "test.csv", ("fname", "raw_text"), listed)
    assert open_audiocaps(AudioCapsConfig(tmp_path)).fingerprint() == expected.fingerprint()


def test_repeated_rows_are_dropped_and_equal_captions_of_two_people_are_not(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    rows = [
        ("1", "-9bnicOVtvk", "130", "A dog barks"),
        ("2", "-9bnicOVtvk", "130", "A dog barks"),
        ("1", "-9bnicOVtvk", "130", "A dog barks"),
        ("3", "-9bnicOVtvk", "130", " "),
    ]
    write_table(tmp_path / "val.csv", LONG, rows)
    write_audio(tmp_path / "val" / "-9bnicOVtvk.wav")
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert captions(data, "valid") == {"-9bnicOVtvk": ("A dog barks", "A dog barks")}
    assert data.summary() == (
        "audiocaps: valid 1 clips x 2 captions (0.3 s), 0.3 s, 0 of 2 captions (0.0%) shared by "
        "2+ clips, 0 clips without audio left out, 1 empty captions dropped, 1 repeated rows "
        "dropped"
    )


def test_missing_audio_is_counted_by_split_or_an_error(
    tmp_path: Path, build: Callable[..., None]
) -> None:
    build(tmp_path, naming="row")
    for row in (TRAIN[0], TRAIN[1], *TEST[:3]):  # of TEST, three of ten rows of two clips
        next(tmp_path.rglob(f"{row[0]}.flac")).unlink()
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert (data.missing, data.counts["train"].missing, data.counts["test"].missing) == (2, 2, 0)
    assert set(captions(data, "train")) == {TRAIN[2][1], TRAIN[3][1]}
    assert len(data.clips("test")) == 2
    assert "train 2 clips x 1 captions (0.6 s, 2 missing)" in data.summary()
    with pytest.raises(FileNotFoundError, match="2 of 6 clips have no audio there") as caught:
        open_audiocaps(AudioCapsConfig(tmp_path, strict=True))
    assert "looked for '-9bnicOVtvk' under the name 'Y-9bnicOVtvk'" in str(caught.value)
    assert "found test.csv, test/, train.csv, train/" in str(caught.value)


def test_a_split_without_any_audio_is_told(tmp_path: Path, build: Callable[..., None]) -> None:
    build(tmp_path)
    for path in (tmp_path / "test").iterdir():
        path.unlink()
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert list(data.splits) == ["train"]
    assert "test 0 clips x 0 captions (0.0 s, 2 missing)" in data.summary()
    for path in (tmp_path / "train").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="none of the 6 clips has its audio there: looked"):
        open_audiocaps(AudioCapsConfig(tmp_path))


def test_broken_audio_is_left_out_counted_and_named_once(
    tmp_path: Path, build: Callable[..., None], write_audio: Callable[..., Path]
) -> None:
    build(tmp_path)
    train = tmp_path / "train"
    (train / f"Y{TRAIN[0][1]}.wav").write_bytes(b"")
    cut = train / f"Y{TRAIN[1][1]}.wav"
    cut.write_bytes(cut.read_bytes()[:20])
    write_audio(train / f"Y{TRAIN[2][1]}.wav", seconds=0.1)
    with pytest.warns(UserWarning) as caught:
        data = open_audiocaps(AudioCapsConfig(tmp_path))
    (message,) = [str(item.message) for item in caught]
    assert "audiocaps: 3 audio files are left out: " in message
    assert f"Y{TRAIN[0][1]}.wav: not readable as audio (the file is empty)" in message
    assert f"Y{TRAIN[2][1]}.wav: lasts 0.100 s, less than 0.175 s" in message
    assert set(captions(data, "train")) == {TRAIN[3][1]}
    assert data.counts["train"].unreadable == 3 and data.counts["test"].unreadable == 0
    assert "3 unreadable clips left out" in data.summary()
    with pytest.raises(ValueError, match="3 audio files are not usable"):
        open_audiocaps(AudioCapsConfig(tmp_path, strict=True))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unchecked = open_audiocaps(AudioCapsConfig(tmp_path, strict=True, check_audio=False))
    assert len(unchecked.clips("train")) == 4
    assert unchecked.seconds is None
    with pytest.raises(ValueError, match="the file is empty"):
        unchecked.read_with(READER).load(unchecked.clips("train")[0])


def test_clips_without_a_caption(tmp_path: Path, build: Callable[..., None]) -> None:
    build(tmp_path)
    text = (tmp_path / "train.csv").read_text(encoding="utf-8")
    (tmp_path / "train.csv").write_text(text.replace(TRAIN[0][3], "..."), encoding="utf-8")
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert TRAIN[0][1] not in captions(data, "train")
    assert data.counts["train"].no_caption == data.counts["train"].empty_captions == 1
    assert "1 clips without a caption left out" in data.summary()
    with pytest.raises(ValueError, match="1 clip is of split 'train' without a caption: '-9bn"):
        open_audiocaps(AudioCapsConfig(tmp_path, strict=True))


def test_a_video_in_two_splits_is_named(tmp_path: Path, build: Callable[..., None]) -> None:
    build(tmp_path)
    with (tmp_path / "train.csv").open("a", encoding="utf-8") as file:
        file.write(f"5,{TEST_IDS[0]},30,A dog\n")
    with pytest.raises(ValueError, match="1 clip is in both 'train' and 'test': '7fmOlUlwoNg'; a"):
        open_audiocaps(AudioCapsConfig(tmp_path))


TWO_STARTS = [
    ("1", "-9bnicOVtvk", "30", "A dog"),
    ("2", "-9bnicOVtvk", "50", "Rain"),
    ("3", "-9bnicOVtvk", "30.0", "A bark"),
]


@pytest.mark.parametrize("naming", ["start", "start as a float", "milliseconds", "row"])
def test_two_starts_in_a_video_are_two_clips(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path], naming: str
) -> None:
    write_table(tmp_path / "test.csv", LONG, TWO_STARTS)
    for row in TWO_STARTS[:2]:
        write_audio(tmp_path / "test" / NAMINGS[naming](row))
    data = open_audiocaps(AudioCapsConfig(tmp_path, strict=True))
    assert captions(data, "test") == {
        "-9bnicOVtvk_30": ("A dog", "A bark"),
        "-9bnicOVtvk_50": ("Rain",),
    }
    assert [Path(clip.source).name for clip in data.clips("test")] == [
        NAMINGS[naming](row) for row in TWO_STARTS[:2]
    ]


def test_two_starts_whose_files_cannot_be_told_apart_are_refused(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    write_table(tmp_path / "test.csv", LONG, TWO_STARTS)
    write_audio(tmp_path / "test" / "Y-9bnicOVtvk.wav")
    with pytest.raises(ValueError, match="row 1: a file 'test/Y-9bnicOVtvk.wav' is there, which"):
        open_audiocaps(AudioCapsConfig(tmp_path))
    write_table(tmp_path / "test.csv", LONG, [TWO_STARTS[0], ("2", "-9bnicOVtvk", "", "Rain")])
    with pytest.raises(ValueError, match="rows 1 and 2 are of video '-9bnicOVtvk', and only one"):
        open_audiocaps(AudioCapsConfig(tmp_path))


def test_two_starts_in_a_video_are_one_recording_in_two_splits(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    for split, row in zip(("train", "test"), TWO_STARTS, strict=False):
        write_table(tmp_path / f"{split}.csv", LONG, [row])
        write_audio(tmp_path / split / NAMINGS["start"](row))
    with pytest.raises(ValueError, match="in both 'train' and 'test': '-9bnicOVtvk_50'; a record"):
        open_audiocaps(AudioCapsConfig(tmp_path))
    data = open_audiocaps(AudioCapsConfig(tmp_path, allow_shared_audio=True))
    assert captions(data, "train") == {"-9bnicOVtvk_30": ("A dog",)}
    assert captions(data, "test") == {"-9bnicOVtvk_50": ("Rain",)}


def test_five_copies_of_a_clip_are_one_whatever_they_are_called(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    first = write_audio(tmp_path / "wav" / "one.wav").read_bytes()
    rows = []
    for number, name in enumerate(["one", "two", "three", "four", "five"]):
        (tmp_path / "wav" / f"{name}.wav").write_bytes(first)
        rows.append((f"{name}.wav", "-9bnicOVtvk", "30", f"Caption {number}"))
    write_table(tmp_path / "test.csv", ("file_name", *LONG[1:]), rows)
    data = open_audiocaps(AudioCapsConfig(tmp_path, strict=True))
    assert captions(data, "test") == {"-9bnicOVtvk": tuple(row[3] for row in rows)}
    write_audio(tmp_path / "other" / "one.wav")
    with pytest.raises(ValueError, match="'one.wav' may be other/one.wav or wav/one.wav; give its"):
        open_audiocaps(AudioCapsConfig(tmp_path))


def test_equal_names_in_two_folders_are_two_clips(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    for folder in ("dogs", "cats"):
        for name in ("001.wav", "recording01.wav"):
            write_audio(tmp_path / folder / name)
    names = [f"{folder}/{name}" for folder in ("dogs", "cats") for name in ("001.wav",)]
    names += ["dogs/recording01.wav", "cats/recording01.wav"]
    rows = [(name, f"Sound of {name}") for name in names]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), rows)
    data = open_audiocaps(AudioCapsConfig(tmp_path, strict=True))
    assert {clip.key: clip.captions for clip in data.clips("train")} == {
        # The second could be a video's, whose file may have any suffix.
        name.replace("recording01.wav", "recording01"): (text,)
        for name, text in rows
    }
    assert [clip.source for clip in data.clips("train")] == [str(tmp_path / n) for n in names]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), [("001.wav", "Which?")])
    with pytest.raises(ValueError, match="'001.wav' may be cats/001.wav or dogs/001.wav; give its"):
        open_audiocaps(AudioCapsConfig(tmp_path))


def test_a_file_that_is_missing_is_not_that_of_another_folder(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    """``cats/001.wav`` was taken for ``dogs/001.wav``."""
    rows = [(f"{name}.wav", f"of {name}") for name in ("dogs/001", "x/002", "val/003", "y/004")]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), rows)
    for name in ("cats/001.wav", "x/002.wav", "cats/003.wav", "train/004.flac"):
        write_audio(tmp_path / "audio" / name)
    with pytest.warns(UserWarning, match="1 clip is without audio"):
        data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert {Path(clip.source).name for clip in data.clips("train")} == {
        "002.wav",
        "003.wav",
        "004.flac",
    }


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("shard_0/a", "shard_1/b"), ("audio/a.wav", "audio/b.wav", "noise/z.wav")),
        (("dogs/a", "cats/b"), ("Dogs/a.wav", "Cats/b.wav")),
        (("dogs/a", "cats/b"), ("dogs/16k/a.wav", "cats/16k/b.wav")),
        (("dogs/a", "cats/b"), ("dogs/a.wav", "b.wav")),
    ],
)
def test_files_that_were_moved_together_are_found(
    tmp_path: Path,
    write_audio: Callable[..., Path],
    write_table: Callable[..., Path],
    names: tuple[str, ...],
    files: tuple[str, ...],
) -> None:
    rows = [(f"{name}.wav", f"of {name}") for name in names]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), rows)
    for file in files:
        write_audio(tmp_path / "audio" / file)
    assert len(open_audiocaps(AudioCapsConfig(tmp_path)).clips("train")) == 2


def test_a_file_in_the_only_folder_that_was_fetched_is_not_another(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path]
) -> None:
    rows = [(f"{name}.wav", f"of {name}") for name in ("dogs/001", "cats/002")]
    write_table(tmp_path / "train.csv", ("file_name", "caption"), rows)
    for name in ("001", "002"):
        write_audio(tmp_path / "audio" / "cats" / f"{name}.wav")
    with pytest.warns(UserWarning, match="1 clip is without audio"):
        (clip,) = open_audiocaps(AudioCapsConfig(tmp_path)).clips("train")
    assert clip.captions == ("of cats/002",)


def test_a_wrong_root_says_what_was_looked_for_and_found(
    tmp_path: Path, build: Callable[..., None], write_table: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match="AudioCaps needs its folder: set root"):
        open_audiocaps(AudioCapsConfig())
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        open_audiocaps(AudioCapsConfig(tmp_path / "nowhere"))
    (tmp_path / "readme.txt").touch()
    with pytest.raises(
        FileNotFoundError,
        match="looked for train, val or test in the name of a .csv file .*, found readme.txt; set",
    ):
        open_audiocaps(AudioCapsConfig(tmp_path))
    rows = [{"youtube_id": "-9bnicOVtvk", "caption": "dog"}]
    (tmp_path / "train.json").write_text(json.dumps({"samples": rows}))
    with pytest.raises(InputError, match="train.json: .* rename the key 'samples' to \"data\""):
        open_audiocaps(AudioCapsConfig(tmp_path))
    (tmp_path / "train.json").unlink()
    write_table(tmp_path / "train.csv", ("youtube_id", "label"), [("-9bnicOVtvk", "dog")])
    with pytest.raises(
        FileNotFoundError, match="found train.csv with the columns youtube_id, label"
    ):
        open_audiocaps(AudioCapsConfig(tmp_path))
    (tmp_path / "train.csv").write_bytes(b"\x00\x01")
    with pytest.raises(ValueError, match="train.csv: is no text"):
        open_audiocaps(AudioCapsConfig(tmp_path))
    write_table(tmp_path / "train.csv", LONG, [("1", " ", "0", "dog")])
    with pytest.raises(ValueError, match="train.csv: row 1 has nothing in column 'youtube_id'"):
        open_audiocaps(AudioCapsConfig(tmp_path))
    build(tmp_path)
    write_table(tmp_path / "csv" / "train.csv", LONG, TRAIN)
    with pytest.raises(ValueError, match=r"both list split 'train'; set captions to the folder"):
        open_audiocaps(AudioCapsConfig(tmp_path))


@pytest.mark.parametrize("name", ["YouTube_ID", "YouTube_id", "YouTubeId", "youtubeId"])
def test_the_video_may_be_written_with_capitals(
    tmp_path: Path, write_audio: Callable[..., Path], write_table: Callable[..., Path], name: str
) -> None:
    """`you_tube_id` was no column of AudioCaps; another JSON beside the CSV stopped it."""
    write_audio(tmp_path / "YAAAAAAAAAAA.wav")
    columns = ("AudioCap_ID", name, "start_time", "caption")
    write_table(tmp_path / "train.csv", columns, [("900", "AAAAAAAAAAA", "1", "a")])
    rows = [{"audio": "YAAAAAAAAAAA.wav", "caption": "a"}]
    (tmp_path / "train.json").write_text(json.dumps({"samples": rows}))
    clips = open_audiocaps(AudioCapsConfig(tmp_path)).clips("train")
    assert [clip.captions for clip in clips] == [("a",)]


@real
def test_the_real_captions() -> None:
    tables = read_audiocaps_captions(REAL)
    sizes = {split: len(table.recordings) for split, table in tables.items()}
    assert sizes == {"train": 49_838, "valid": 495, "test": 975}
    lengths = {
        split: {len(item.captions) for item in table.recordings.values()}
        for split, table in tables.items()
    }
    assert lengths == {"train": {1}, "valid": {5}, "test": {5}}
    assert not any(
        table.repeated_rows or table.empty_captions or table.without_caption
        for table in tables.values()
    )
    keys = [{item.key for item in table.recordings.values()} for table in tables.values()]
    assert len(set.union(*keys)) == sum(map(len, keys))
    starts = {key[0] for key in keys[0]}
    assert {"-", "_"} <= starts and all(len(key) == 11 for part in keys for key in part)

    texts = {
        split: [text for item in table.recordings.values() for text in item.captions]
        for split, table in tables.items()
    }
    assert max(len(text.split()) for part in texts.values() for text in part) == 52
    # The duplicates of data.md: captions whose raw text an earlier row has already.
    assert {split: len(part) - len(set(part)) for split, part in texts.items()} == {
        "train": 4_122,
        "valid": 166,
        "test": 242,
    }
    # Under this package's normalisation, under which ids are equal, there are a few more.
    ids = {
        split: [{caption_id(t) for t in item.captions} for item in table.recordings.values()]
        for split, table in tables.items()
    }
    assert len(texts["train"]) - len(set.union(*ids["train"])) == 4_165
    assert len(texts["test"]) - len(set.union(*ids["test"])) == 243
    # Another question: captions that some other clip has as well, as the summary counts them.
    clips_with = Counter(item for own in ids["train"] for item in own)
    assert sum(clips_with[item] > 1 for own in ids["train"] for item in own) == 5_789
    test = [Clip(item.key, item.captions, None) for item in tables["test"].recordings.values()]
    assert shared_captions(test) == (229, 4_875)


@real
def test_real_rows_with_audio_in_small(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    """The first rows of the real files, the audio of every third clip missing."""
    for split in ("train", "val", "test"):
        lines = (REAL / f"{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"{split}.csv").write_text("".join(lines[:41]), encoding="utf-8")
    kept = total = 0
    for split, table in read_audiocaps_captions(tmp_path).items():
        total += len(table.recordings)
        for number, key in enumerate(item.key for item in table.recordings.values()):
            if number % 3:
                folder = "val" if split == "valid" else split
                write_audio(tmp_path / folder / f"Y{key}.wav")
                kept += 1
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert sum(len(clips) for clips in data.splits.values()) == kept
    assert data.missing == total - kept > 0
    assert soundfile.info(data.clips("test")[0].source).frames == 4800


@pytest.mark.parametrize("column", ["file_name", "audiocap_id"])
def test_an_empty_cell_of_json_names_no_file(
    tmp_path: Path, write_audio: Callable[..., Path], column: str
) -> None:
    """Both rows were of the file None.wav."""
    for name in ("None", "YAAAAAAAAAAA", "YBBBBBBBBBBB"):
        write_audio(tmp_path / "train" / f"{name}.wav")
    rows = [
        {"youtube_id": name * 11, "start_time": 1, column: None, "caption": f"sound {name}"}
        for name in "AB"
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = open_audiocaps(AudioCapsConfig(tmp_path))
    assert {clip.key: Path(clip.source).stem for clip in data.clips("train")} == {
        "A" * 11: "YAAAAAAAAAAA",
        "B" * 11: "YBBBBBBBBBBB",
    }
    rows[1]["youtube_id"] = None
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="row 2 has nothing in column 'youtube_id'"):
        open_audiocaps(AudioCapsConfig(tmp_path))
