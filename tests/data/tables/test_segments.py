from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from atr_moco_plugin.data.audio.cache import entry_path
from atr_moco_plugin.data.audio.decode import read_frames
from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.tables.rows import read_rows
from atr_moco_plugin.data.tables.segments import fragment, place_note, segment_of

RATE = 16_000
COLUMNS = ("file_name", "youtube_id", "start", "end", "caption")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"start": "1.5", "end": "3"}, (1.5, 3.0)),
        ({"start": 1, "duration": "2"}, (1.0, 3.0)),
        ({"start_time": "1", "end_time": "3"}, (1.0, 3.0)),
        ({"onset": "1", "offset": "3"}, (1.0, 3.0)),
        ({"onset": "1", "offset": "3", "duration": "9"}, (1.0, 3.0)),
        ({"offset": "1", "duration": "2"}, (1.0, 3.0)),
        ({"begin": "1", "stop": "3"}, (1.0, 3.0)),
        ({"start_s": "1", "end_s": "3"}, (1.0, 3.0)),
        ({"onset": "1", "duration": "2"}, (1.0, 3.0)),
        ({"start": "0", "end": "3", "onset": "0.0"}, (0.0, 3.0)),
        ({"duration": "10"}, None),
        ({"start": "1"}, None),
        ({"start": "", "end": "", "duration": "10"}, None),
        ({"start": None, "end": 3}, None),
        ({"offset": "1"}, None),
        ({"start_ms": "100", "end_ms": "300"}, None),
        ({"file_name": "a.wav"}, None),
    ],
)
def test_columns_that_name_a_segment(
    row: dict[str, object], expected: tuple[float, float] | None
) -> None:
    assert segment_of(row, "m.csv: row 1") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start": "0:30", "end": "1"}, "row 1: start is '0:30', not a number of seconds"),
        ({"start": "1", "end": "nan"}, "row 1: end is 'nan', not a number of seconds"),
        ({"start": "1", "end": "inf"}, "row 1: end is 'inf', not a number"),
        ({"start": True, "end": 2}, "row 1: start is 'True', not a number"),
        ({"start": "3", "end": "1"}, "row 1 has a part from 3 s to 1 s, which must be in order"),
        ({"start": "3", "duration": "0"}, "row 1 has a part from 3 s to 3 s"),
        ({"start": "-1", "end": "1"}, "row 1 has a part from -1 s to 1 s"),
        ({"start": "1", "onset": "2", "end": "3"}, "start is 1 and onset is 2; keep one"),
    ],
)
def test_columns_that_contradict_themselves(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segment_of(row, "m.csv: row 1")


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ("start_ms,end_ms", "'start_ms', 'end_ms', which no part of a file is taken from"),
        ("end", "'end', which"),
        ("start", "'start', which"),
        ("onset", "'onset', which"),
        ("start,end,t_stop", "'t_stop', which"),
        ("startMs,endMs", "'startms', 'endms', which"),
        ("starttime,endtime", "'starttime', 'endtime', which"),
    ],
)
def test_columns_that_may_name_a_segment_and_are_not_read_are_named(
    tmp_path: Path, write_audio: Callable[..., Path], columns: str, left: str
) -> None:
    """Each file was read whole, without a word."""
    write_audio(tmp_path / "a.wav")
    numbers = ",".join("0.3" if name == "end" else "0" for name in columns.split(","))
    table = tmp_path / "m.csv"
    table.write_text(f"file_name,{columns},caption\na.wav,{numbers},one\n")
    with pytest.warns(UserWarning, match=left):
        open_manifest(ManifestConfig(table))
    table.write_text(f"file_name,youtube_id,{columns},caption\na.wav,x,{numbers},one\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_manifest(ManifestConfig(table))


def test_columns_in_camel_case_are_read_as_those_with_underscores(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    """The parts of a file were one clip of all of it, with all their captions."""
    write_audio(tmp_path / "a.wav", seconds=2)
    rows = [
        {
            "fileName": "a.wav",
            "clipId": f"c{n}",
            "caption": f"part {n}",
            "startTime": n,
            "EndTime": n + 1,
        }
        for n in range(2)
    ]
    as_lines = "\n".join(map(json.dumps, rows))
    as_csv = "\n".join(",".join(map(str, row)) for row in (rows[0], *(x.values() for x in rows)))
    for name, text in (("m.jsonl", as_lines), ("m.json", json.dumps(rows)), ("m.csv", as_csv)):
        (tmp_path / name).write_text(text)
        clips = open_manifest(ManifestConfig(tmp_path / name)).clips("train")
        assert [(clip.key, clip.captions) for clip in clips] == [
            ("c0", ("part 0",)),
            ("c1", ("part 1",)),
        ]
        assert [(clip.source.start, clip.source.end) for clip in clips] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("names", [("OnSet", "OffSet"), ("onSet", "offSet")])
def test_names_that_are_known_in_lower_case_are_not_split(
    tmp_path: Path, write_audio: Callable[..., Path], names: tuple[str, str]
) -> None:
    """`on_set` and `sub_set` named nothing: all of the file was trained on, of every split."""
    write_audio(tmp_path / "a.wav", seconds=2)
    write_audio(tmp_path / "b.wav", seconds=2)
    table = tmp_path / "m.csv"
    rows = "a.wav,one,0,1,train,x\na.wav,two,1,2,train,y\nb.wav,three,0,1,test,z\n"
    table.write_text(f"fName,Caption,{','.join(names)},SubSet,fileName\n{rows}")
    data = open_manifest(ManifestConfig(table))
    assert [(clip.source.start, clip.source.end) for clip in data.clips("train")] == [
        (0, 1),
        (1, 2),
    ]
    assert len(data.clips("test")) == 1


@pytest.mark.parametrize("columns", ["weekEnd,x", "frontEnd,backEnd", "WeekEnd,offSetting"])
def test_words_that_end_like_places_are_none(
    tmp_path: Path, write_audio: Callable[..., Path], columns: str
) -> None:
    write_audio(tmp_path / "a.wav")
    table = tmp_path / "m.csv"
    table.write_text(f"file_name,fileName,caption,{columns}\na.wav,t,one,x,y\na.wav,u,two,z,y\n")
    assert open_manifest(ManifestConfig(table)).clips("train")[0].captions == ("one", "two")


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("place", ["00:00:01", "2020-01-01T00:00"])
def test_a_start_time_in_camel_case_that_is_no_number_is_not_read(
    tmp_path: Path, write_audio: Callable[..., Path], suffix: str, place: str
) -> None:
    """It was a whole file, and ended in a refusal."""
    for name in "ab":
        write_audio(tmp_path / f"{name}.wav", seconds=2)
    rows = [
        {"file_name": "a.wav", "caption": "one", "startTime": place, "endTime": place},
        {"file_name": "b.wav", "caption": "two", "startTime": 0, "endTime": 1},
    ]
    table = tmp_path / f"m.{suffix}"
    as_csv = "\n".join(",".join(map(str, row)) for row in (rows[0], *(x.values() for x in rows)))
    lines = "\n".join(map(json.dumps, rows))
    table.write_text({"csv": as_csv, "json": json.dumps(rows), "jsonl": lines}[suffix])
    with pytest.warns(UserWarning, match="has 'starttime', 'endtime', which no part of a file is"):
        first, second = open_manifest(ManifestConfig(table)).clips("train")
    assert first.source == str(tmp_path / "a.wav") and (second.source.start, second.source.end) == (
        0,
        1,
    )


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_name_in_camel_case_beside_the_one_it_stands_for_is_not_read(
    tmp_path: Path, write_audio: Callable[..., Path], suffix: str
) -> None:
    """A CSV with both was said to have one column twice."""
    write_audio(tmp_path / "a.wav", seconds=2)
    row = {
        "file_name": "a.wav", "caption": "one", "startTime": 0.5, "start_time": 1, "end_time": 2
    }  # fmt: skip
    table = tmp_path / f"m.{suffix}"
    as_csv = "\n".join(",".join(map(str, cells)) for cells in (row, row.values()))
    table.write_text({"csv": as_csv, "json": json.dumps([row]), "jsonl": json.dumps(row)}[suffix])
    with pytest.warns(UserWarning, match="has 'starttime', which no part of a file is taken from"):
        (clip,) = open_manifest(ManifestConfig(table)).clips("train")
    assert (clip.source.start, clip.source.end) == (1, 2)


def test_json_rows_that_leave_out_their_end_are_counted(tmp_path: Path) -> None:
    """``start`` was said never to be read, of a table in which it is."""
    path = tmp_path / "a.jsonl"
    rows = [{"audio": "a.wav", "start": n, **({"end": n + 1} if n < 2 else {})} for n in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning) as said:
        list(read_rows(path))
    (told,) = (str(x.message) for x in said)
    assert "are of the whole file (2, such as row 3, 'start')" in told


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("start,end", ["0,0.2", "0.1,", ",0.3", ","]),
        ("start,duration", ["0,0.2", "0.1,", "0.2,", ",0.3"]),
        ("start,end,t_stop", ["0,0.2,1", "0.1,,1", ",0.3,1", ",,1"]),
        ("youtube_id,start,end", ["x,0,0.2", ",0.1,", ",,0.3", "y,5,"]),
        ("youtube_id,start_ms", ["x,0", ",100", ",200", ","]),
    ],
)
def test_rows_with_half_a_place_are_counted(
    tmp_path: Path, write_audio: Callable[..., Path], columns: str, rows: list[str]
) -> None:
    """Each was its whole file without a word, beside rows that are parts of theirs."""
    table = tmp_path / "m.csv"
    lines = [f"{write_audio(tmp_path / f'{k}.wav').name},{r},text {k}" for k, r in enumerate(rows)]
    table.write_text("\n".join([f"file_name,{columns},caption", *lines]))
    place = columns.split(",")[1 if "youtube" in columns else 0]
    message = rf"are of the whole file \(2, such as row 2, '{place}'\); fill in both"
    with pytest.warns(UserWarning) as said:
        open_manifest(ManifestConfig(table))
    assert re.search(message, str(said[-1].message))
    assert sum("of the whole file" in str(warning.message) for warning in said) == 1


def test_an_empty_youtube_id_is_no_video(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    """The whole file was the clip."""
    for name in "ab":
        write_audio(tmp_path / f"{name}.wav", seconds=1.0)
    rows = [("a.wav", " ", "0.1", "0.6", "one"), ("b.wav", "abcdefghijk", "5", "15", "two")]
    table = tmp_path / "m.csv"
    table.write_text("\n".join(map(",".join, [(*COLUMNS,), *rows])))
    clips = open_manifest(ManifestConfig(table)).clips("train")
    assert [clip.key for clip in clips] == ["a.wav#t=0.1,0.6", "b.wav"]
    assert isinstance(clips[0].source, Segment) and clips[1].source == str(tmp_path / "b.wav")


def test_a_segment_that_is_another_clip_is_named(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "a.wav")
    table = tmp_path / "m.csv"
    rows = "a.wav,,,one\na.wav,0,0.3,two\na.wav,0,0.2,three\n"
    table.write_text(f"file_name,start,end,caption\n{rows}")
    with pytest.warns(UserWarning, match="1 clips have the same audio as another"):
        data = open_manifest(ManifestConfig(table))
    assert data.counts["train"].same_audio == 1 and len(data.splits["train"]) == 3
    table.write_text("file_name,start,end,caption\na.wav,0,0.2,one\na.wav,0,0.200001,two\n")
    with pytest.warns(UserWarning, match="1 clips have the same audio as another"):
        open_manifest(ManifestConfig(table))


def test_another_part_under_the_same_clip_id_is_other_data(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    """A run resumed on it without a word."""
    write_audio(tmp_path / "a.wav")
    table, prints = tmp_path / "m.csv", []
    for end in ("0.2", "0.3"):
        table.write_text(f"file_name,clip_id,start,end,caption\na.wav,1,0,{end},one\n")
        prints.append(open_manifest(ManifestConfig(table)).fingerprint())
    assert prints[0] != prints[1]


def test_what_else_speaks_of_a_place_is_compared() -> None:
    assert place_note({"start_time": "30.0", "caption": "start"}) == "start_time 30"
    assert place_note({"start_ms": "5", "clip_start": "x", "weekend": "7"}) == (
        "start_ms 5, clip_start x"
    )
    assert place_note({"duration": "10", "start": " "}) == ""
    assert fragment((30.0, 40.5)) == "#t=30,40.5" and fragment(None) == ""


@pytest.fixture
def table(
    tmp_path: Path, write_table: Callable[..., Path], write_audio: Callable[..., Path]
) -> Callable[..., ManifestConfig]:
    """A manifest of one file of 4 s."""
    write_audio(tmp_path / "a.wav", seconds=4.0)

    def make(columns: tuple[str, ...], *rows: tuple[object, ...]) -> ManifestConfig:
        columns = ("file_name", "caption", *columns)
        named = [("a.wav", f"text {k}", *row) for k, row in enumerate(rows)]
        return ManifestConfig(write_table(tmp_path / "m.csv", columns, named))

    return make


def test_segments_of_a_file_are_clips_of_their_own(
    tmp_path: Path, table: Callable[..., ManifestConfig]
) -> None:
    rows = [("0", "1"), ("2", "3.5"), ("0.0", "1.0"), ("0.5", "2"), ("", "")]
    data = open_manifest(table(("start", "end"), *rows)).read_with(AudioReader(RATE))
    clips = {clip.key: clip for clip in data.clips("train")}
    assert {key: clip.captions for key, clip in clips.items()} == {
        "a.wav#t=0,1": ("text 0", "text 2"),
        "a.wav#t=2,3.5": ("text 1",),
        "a.wav#t=0.5,2": ("text 3",),
        "a.wav": ("text 4",),
    }
    whole = data.load(clips["a.wav"])
    for key, part in (("a.wav#t=0,1", (0, 1)), ("a.wav#t=2,3.5", (2, 3.5))):
        first, last = (round(RATE * second) for second in part)
        np.testing.assert_array_equal(data.load(clips[key]), whole[first:last])
    assert data.counts["train"].seconds == pytest.approx(1 + 1.5 + 1.5 + 4)
    ids = [data.clip_id(clip) for clip in clips.values()]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (("onset", "offset"), [("1", "2"), ("2", "3")]),
        (("offset", "duration"), [("1", "1"), ("2", "1")]),
        (("start", "duration"), [("1", "1"), ("2", "1")]),
        (("start_time", "end_time"), [("1", "2"), ("2", "3")]),
    ],
)
def test_spellings_of_the_same_segments(
    table: Callable[..., ManifestConfig],
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
) -> None:
    data = open_manifest(table(columns, *rows))
    assert [clip.key for clip in data.clips("train")] == ["a.wav#t=1,2", "a.wav#t=2,3"]


@pytest.mark.parametrize("column", ["start", "start_time", "onset", "offset", "start_ms"])
def test_several_starts_without_an_end_are_refused(
    table: Callable[..., ManifestConfig], column: str
) -> None:
    config = table((column,), ("1",), ("2",))
    with pytest.raises(ValueError, match="row 2 and row 1 are of one file, 'a.wav', and name two"):
        open_manifest(config)
    (config.root.parent / "soft.wav").symlink_to("a.wav")
    config.root.write_text(f"file_name,caption,{column}\na.wav,one,1\nsoft.wav,two,2\n")
    with pytest.raises(ValueError, match="row 2 and row 1 are of one file, 'soft.wav', and name"):
        open_manifest(config)
    (clip,) = open_manifest(table((column,), ("1",), ("1.0",))).clips("train")
    assert clip.key == "a.wav" and len(clip.captions) == 2


def test_a_lone_duration_is_metadata(table: Callable[..., ManifestConfig]) -> None:
    (clip,) = open_manifest(table(("duration",), ("4",), ("10",))).clips("train")
    assert clip.key == "a.wav" and len(clip.captions) == 2


def test_a_segment_that_is_not_in_its_file_is_refused(
    table: Callable[..., ManifestConfig],
) -> None:
    for part in (("4", "5"), ("30", "40"), ("3", "4.2"), ("1e300", "1e301")):
        with pytest.raises(ValueError, match="row 1: .*a.wav from .* is not in its file, which la"):
            open_manifest(table(("start", "end"), part))
    data = open_manifest(table(("start", "end"), ("3", "4.05"))).read_with(AudioReader(RATE))
    assert data.load(data.clips("train")[0]).shape == (RATE,)  # an end that was rounded
    unchecked = table(("start", "end"), ("30", "40"))
    data = open_manifest(ManifestConfig(unchecked.root, check_audio=False))
    with pytest.raises(ValueError, match="is not in its file"):
        data.read_with(AudioReader(RATE)).load(data.clips("train")[0])


def test_a_segment_that_is_too_short_is_left_out(table: Callable[..., ManifestConfig]) -> None:
    config = table(("start", "end"), ("1", "1.1"), ("0", "1"))
    with pytest.warns(UserWarning, match="lasts 0.100 s, less than 0.175 s"):
        data = open_manifest(config)
    assert data.counts["train"].unreadable == 1 and len(data.clips("train")) == 1


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 16_000), ("flac", 44_100), ("ogg", 22_050)])
@pytest.mark.parametrize("out", [16_000, 48_000])
def test_a_segment_is_read_as_a_file_of_its_own(
    tmp_path: Path, write_audio: Callable[..., Path], suffix: str, rate: int, out: int
) -> None:
    path = write_audio(tmp_path / f"a.{suffix}", seconds=3.0, rate=rate)
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(tmp_path / "cut.wav", samples[rate : 2 * rate], rate, subtype="FLOAT")
    part = Segment(str(path), 1.0, 2.0)
    cut = read_audio(tmp_path / "cut.wav", out)
    np.testing.assert_allclose(read_audio(part, out), cut, atol=2e-6)
    for seed in range(3):
        crops = [
            read_audio(source, out, out // 4, torch.Generator().manual_seed(seed))
            for source in (part, tmp_path / "cut.wav")
        ]
        assert crops[0].shape == (out // 4,)
        np.testing.assert_allclose(*crops, atol=2e-6)


def test_a_segment_is_decoded_without_the_rest(
    tmp_path: Path, write_audio: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_audio(tmp_path / "a.wav", seconds=20.0)
    decoded: list[int] = []

    def read(*args: object) -> np.ndarray:
        frames = read_frames(*args)
        decoded.append(len(frames))
        return frames

    monkeypatch.setattr("atr_moco_plugin.data.audio.read.read_frames", read)
    read_audio(Segment(str(path), 10.0, 11.0), RATE)
    assert decoded == [RATE]


def test_a_segment_is_cached_by_itself(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    path = str(write_audio(tmp_path / "a.wav", seconds=3.0))
    sources = [path, Segment(path, 0, 1), Segment(path, 1, 2), Segment(path, 0, 2)]
    assert len({entry_path(tmp_path, source) for source in sources}) == 4
    reader = AudioReader(RATE, cache_dir=tmp_path / "cache")
    for _ in range(2):
        for source in sources[1:]:
            clip = Clip("k", ("x",), source)
            np.testing.assert_allclose(reader(clip.source), read_audio(source, RATE), atol=2**-15)


def test_a_table_holds_segments_as_text() -> None:
    clips = [Clip("a", ("x",), Segment("a.wav", 0.1, 1 / 3)), Clip("b", ("y",), "b.wav")]
    table = ClipTable(clips)
    assert list(table) == clips and isinstance(table[0].source, Segment)
    assert not table._sources
