from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.wavcaps import WavCapsConfig, open_wavcaps, read_wavcaps_captions
from atr_moco_plugin.errors import InputError

READER = AudioReader(16_000)


def write_json(path: Path, rows: object, number: int = 1, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"num_captions_per_audio": number, "data": rows}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    return path


def entry(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "caption": f"Sound of {name}", "duration": 0.3, **more}


@pytest.mark.parametrize("column", ["audio", "wav"])
@pytest.mark.parametrize(
    "value", ["{name}.wav", "waveforms/{name}.wav", "/home/somebody/wavcaps/{name}.wav", "{root}"]
)
def test_where_the_audio_is(
    tmp_path: Path, write_audio: Callable[..., Path], column: str, value: str
) -> None:
    rows = []
    for name in ("-Yb0RFKhbpFJA", "_1234"):
        path = write_audio(tmp_path / "waveforms" / f"{name}.wav")
        where = value.format(name=name, root=path)
        rows.append(entry(name, **{column: str(path) if value == "{root}" else where}))
    write_json(tmp_path / "train.json", rows)
    data = open_wavcaps(WavCapsConfig(tmp_path, strict=True))
    assert {clip.key: clip.captions for clip in data.clips("train")} == {
        "-Yb0RFKhbpFJA": ("Sound of -Yb0RFKhbpFJA",),
        "_1234": ("Sound of _1234",),
    }
    assert data.seconds == pytest.approx(0.6)
    assert data.read_with(READER).load(data.clips("train")[0]).shape == (4800,)


def test_audio_by_id_numbers_as_ids_and_numbered_captions(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "Yabc.wav.flac")
    write_audio(tmp_path / "17.flac")
    rows = [
        {"id": 17, **{f"caption_{n}": f"caf\u00e9 {n}" for n in range(1, 6)}},
        {"id": "Yabc.wav", "caption_1": "one", "caption_2": ""},
        {"id": 17, **{f"caption_{n}": f"caf\u00e9 {n}" for n in range(1, 6)}},
        {"id": "gone", "caption_1": "?"},
    ]
    path = write_json(tmp_path / "a.json", rows, 5, encoding="latin-1")
    data = open_wavcaps(WavCapsConfig(path, split="test", name="mine"))
    assert {clip.key: clip.captions for clip in data.clips("test")} == {
        "17": tuple(f"caf\u00e9 {n}" for n in range(1, 6)),
        "Yabc.wav": ("one",),
    }
    counts = data.counts["test"]
    assert (counts.repeated_rows, counts.empty_captions, counts.no_caption) == (1, 1, 1)


def test_a_title_that_is_the_id_of_another_entry(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    for name in ("555", "1234"):
        write_audio(tmp_path / f"{name}.flac")
    write_audio(tmp_path / "door.wav")
    titles = {"555": "1234.wav", "1234": "x.wav", "777": "555.wav", "888": "door.wav"}
    write_json(tmp_path / "a.json", [entry(k, file_name=title) for k, title in titles.items()])
    data = open_wavcaps(WavCapsConfig(tmp_path))
    assert {clip.key: Path(clip.source).name for clip in data.clips("train")} == {
        "555": "555.flac",
        "1234": "1234.flac",
        "888": "door.wav",
    }
    assert data.counts["train"].missing == 1


def test_files_with_numbers_that_are_no_ids(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    for name in ("1", "5"):
        write_audio(tmp_path / f"{name}.flac")
    files = {"1": "5.flac", "5": "1.flac"}
    write_json(tmp_path / "a.json", [entry(k, path=file) for k, file in files.items()])
    data = open_wavcaps(WavCapsConfig(tmp_path))
    assert {clip.key: Path(clip.source).name for clip in data.clips("train")} == files
    write_json(tmp_path / "a.json", [entry(k, file_name=file) for k, file in files.items()])
    with pytest.raises(ValueError, match="its id has the file .*1.flac, and its file_name 5.flac"):
        open_wavcaps(WavCapsConfig(tmp_path))


def test_several_files_with_equal_ids(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    for source in ("FreeSound", "BBC_Sound_Effects"):
        name = source.split("_")[0].lower()
        write_json(tmp_path / "json_files" / source / f"{name}.json", [entry("1234")])
        write_audio(tmp_path / "waveforms" / f"{source}_flac" / "1234.flac")
    write_json(tmp_path / "json_files" / "blacklist" / "blacklist.json", {"AudioSet": ["Y1"]})
    data = open_wavcaps(WavCapsConfig(tmp_path, strict=True))
    assert {clip.key: Path(clip.source).parent.name for clip in data.clips("train")} == {
        "bbc/1234": "BBC_Sound_Effects_flac",
        "freesound/1234": "FreeSound_flac",
    }
    both = WavCapsConfig(
        tmp_path / "json_files" / "FreeSound" / "freesound.json", audio=tmp_path / "waveforms"
    )
    assert [clip.key for clip in open_wavcaps(both).clips("train")] == ["1234"]
    (tmp_path / "json_files" / "FreeSound").rename(tmp_path / "json_files" / "other")
    with pytest.raises(ValueError, match="'1234' of .* may be waveforms/BBC_Sound_Effects_flac/12"):
        open_wavcaps(WavCapsConfig(tmp_path))


def test_validation_is_a_seeded_share_of_the_recordings(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    rows = [entry(f"{number}") for number in range(20)]
    for row in rows:
        write_audio(tmp_path / f"{row['id']}.wav")
    path = write_json(tmp_path / "a.json", rows)

    def valid(**options: object) -> set[str]:
        data = open_wavcaps(WavCapsConfig(tmp_path, check_audio=False, **options))
        assert sum(map(len, data.splits.values())) == 20
        return {clip.key for clip in data.splits.get("valid", [])}

    chosen = valid(valid_fraction=0.2)
    assert len(chosen) == 4 and valid() == set()
    assert valid(valid_fraction=0.2, seed=1) != chosen
    assert len(valid(valid_fraction=0.001)) == 1 and len(valid(valid_fraction=0.999)) == 19
    write_json(path, rows[::-1])
    assert valid(valid_fraction=0.2) == chosen
    (tmp_path / f"{min(chosen)}.wav").unlink()
    data = open_wavcaps(WavCapsConfig(tmp_path, valid_fraction=0.2))
    assert {clip.key for clip in data.clips("valid")} == chosen - {min(chosen)}
    assert data.counts["valid"].missing == data.missing == 1


def test_the_list_of_each_file_is_read_in_any_case(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    """The second file was passed over without a word."""
    for name in "xy":
        write_audio(tmp_path / f"{name}.wav")
    write_json(tmp_path / "a.json", [entry("x")])
    (tmp_path / "b.json").write_text(json.dumps({"Data": [entry("y")]}))
    assert {clip.key for clip in open_wavcaps(WavCapsConfig(tmp_path)).clips("train")} == {
        "a/x",
        "b/y",
    }


def test_json_with_rows_under_another_key_is_refused_where_it_is_the_only_one(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    write_audio(tmp_path / "x.wav")
    (tmp_path / "b.json").write_text(json.dumps({"rows": [{"path": "x.wav", "caption": "y"}]}))
    with pytest.raises(InputError, match="b.json: .* rename the key 'rows' to \"data\""):
        open_wavcaps(WavCapsConfig(tmp_path))
    write_json(tmp_path / "a.json", [entry("x")])
    assert [clip.key for clip in open_wavcaps(WavCapsConfig(tmp_path)).clips("train")] == ["x"]


def test_errors(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="WavCaps needs its folder"):
        open_wavcaps(WavCapsConfig())
    for fraction in (-0.1, 1.0):
        with pytest.raises(
            ValueError, match="`valid_fraction` is .*, expected at least 0 and below 1"
        ):
            open_wavcaps(WavCapsConfig(tmp_path, valid_fraction=fraction))
    with pytest.raises(ValueError, match="split is 'valid' already"):
        open_wavcaps(WavCapsConfig(tmp_path, split="valid", valid_fraction=0.1))
    (tmp_path / "other.json").write_text('["a"]')
    with pytest.raises(FileNotFoundError, match="looked for .json files with .*found other.json"):
        open_wavcaps(WavCapsConfig(tmp_path))
    path = write_json(tmp_path / "a.json", [entry("x"), {"caption": "no id"}])
    with pytest.raises(ValueError, match='a.json: entry 2 of "data" has no "id"'):
        open_wavcaps(WavCapsConfig(tmp_path))
    write_json(path, [{"id": "x", "tags": "dog"}])
    with pytest.raises(ValueError, match="entry 1 .* has no \"caption\" .*; it has 'id', 'tags'"):
        read_wavcaps_captions(path)
    write_json(path, [entry("x")])
    with pytest.raises(FileNotFoundError, match="none of the 1 clips has its audio there"):
        open_wavcaps(WavCapsConfig(tmp_path))
    path.write_text('{"data": [')
    with pytest.raises(ValueError, match="a.json: is not JSON"):
        read_wavcaps_captions(tmp_path)
    path.write_bytes(b"\x1f\x8b\x00")
    with pytest.raises(ValueError, match="a.json: is no text"):
        read_wavcaps_captions(path)
