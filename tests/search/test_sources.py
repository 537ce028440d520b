"""What ``index`` is given, and how a recording is read again."""

from __future__ import annotations

import json
import os
import tarfile
import warnings
from pathlib import Path

import pytest
from sound_folders import write_sound

from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.search.sources import Listing, list_sounds, open_recording
from atr_moco_plugin.search.store import Recording


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """``a.wav`` and ``b/c.wav``, 2 s each."""
    for number, name in enumerate(("a.wav", "b/c.wav")):
        write_sound(tmp_path / "sounds" / name, number, 2.0)
    return (tmp_path / "sounds").resolve()


def names(listing: Listing, root: Path) -> list[str]:
    return [os.path.relpath(x.path, root) + x.member for x in listing.found]


def test_a_folder_is_named_by_its_real_path(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sounds)
    listing = list_sounds(tmp_path / "link")
    assert names(listing, sounds) == ["a.wav", "b/c.wav"]
    assert listing.covers(str(sounds / "x.wav"), "") and listing.covers(str(sounds / "x.tar"), "y")
    assert not listing.covers(f"{sounds}2/x.wav", "")
    assert not listing.covers(str(sounds / "a.wav"), "#t=1,2")  # of a table


def test_one_sound(sounds: Path) -> None:
    listing = list_sounds(sounds / "a.wav")
    assert names(listing, sounds) == ["a.wav"]
    assert listing.covers(str(sounds / "a.wav"), "")
    assert not listing.covers(str(sounds / "b/c.wav"), "")


def test_more_suffixes(sounds: Path) -> None:
    (sounds / "d.SPH").write_bytes(b"x")
    assert names(list_sounds(sounds, suffixes=["sph"]), sounds) == ["a.wav", "b/c.wav", "d.SPH"]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_of_files(sounds: Path, separator: bytes) -> None:
    lines = [
        b"b/c.wav",
        b"a.wav",
        b"./a.wav",
        b"gone.wav",
        b"b",
        b"",
        os.fsencode(sounds / "a.wav"),
    ]
    (sounds / "list.txt").write_bytes(separator.join(lines) + separator)
    listing = list_sounds(sounds / "list.txt", is_list=True)
    assert names(listing, sounds) == ["b/c.wav", "a.wav"]
    assert listing.notes.problems == [
        (str(sounds / "gone.wav"), "no such file"),
        (str(sounds / "b"), "is a folder, and a list names files"),
    ]
    assert listing.covers(str(sounds / "gone.wav"), "")
    assert not listing.covers(str(sounds / "other.wav"), "")


def test_names_in_a_list_may_have_line_breaks_other_bytes_and_any_suffix(sounds: Path) -> None:
    odd = [b"two\nlines.wav", b"\xff.wav", b"no suffix"]
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(sounds), name))).write_bytes(b"x")
    (sounds / "list").write_bytes(b"\0".join(odd))
    assert names(list_sounds(sounds / "list", is_list=True), sounds) == list(map(os.fsdecode, odd))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "lines", ["a.wav", "a.wav\nb/c.wav\n", "b/\u0439.wav\r\n", "a\nno suffix\n"]
)
def test_a_list_in_utf_16_without_its_mark_is_not_one_with_zero_bytes_between_names(
    sounds: Path, encoding: str, lines: str
) -> None:
    (sounds / "list.txt").write_bytes(lines.encode(encoding))
    with pytest.raises(InputError, match=r"list.txt: is UTF-16; write the list in UTF-8"):
        list(list_sounds(sounds / "list.txt", is_list=True).found)


def test_names_of_one_letter_in_a_list_are_no_utf_16(sounds: Path) -> None:
    for name in "abc":
        (sounds / "x" / name).parent.mkdir(exist_ok=True)
        (sounds / "x" / name).write_bytes(b"x")
    (sounds / "x" / "list").write_bytes(b"a\0b\0c\0./a\0")
    found = names(list_sounds(sounds / "x" / "list", is_list=True), sounds / "x")
    assert found == ["a", "b", "c"]


def test_names_in_a_list_may_be_relative_to_another_folder(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffb/c.wav\n")
    listing = list_sounds(tmp_path / "list.txt", is_list=True, relative_to=sounds)
    assert names(listing, sounds) == ["b/c.wav"]


def test_what_a_folder_passes_over_is_not_gone(sounds: Path) -> None:
    (sounds / ".hidden").mkdir()
    there = [sounds / "a.sph", sounds / ".hidden" / "a.wav"]
    for file in there:
        file.write_bytes(b"x")
    listing = list_sounds(sounds)
    assert not any(listing.covers(str(file), "") for file in there)
    assert list_sounds(sounds, suffixes=["sph"]).covers(str(there[0]), "")
    for file in there:
        file.unlink()
    assert all(listing.covers(str(file), "") for file in there)


def test_a_table_with_parts_of_files(sounds: Path) -> None:
    (sounds / "parts.csv").write_text(
        "file_name,start,end\na.wav,0,0.5\na.wav,0.5,1.25\na.wav,0,0.50\nb/c.wav,,\nno.wav,,\n"
    )
    listing = list_sounds(sounds / "parts.csv")
    assert names(listing, sounds) == ["a.wav#t=0,0.5", "a.wav#t=0.5,1.25", "b/c.wav"]
    assert listing.notes.problems == [(str(sounds / "no.wav"), "no such file")]


def test_a_row_that_names_two_files_is_refused_and_no_other_stands_in_for_a_missing_one(
    sounds: Path,
) -> None:
    table = sounds / "two.csv"
    table.write_text(
        "file_name,path\nc.wav,b/c.wav\ngone.wav,a.wav\na.wav,a title\na.wav,b/c.wav\n"
    )
    listing = list_sounds(table)
    found = [next(listing.found).path, next(listing.found).path]
    assert found == [str(sounds / "b/c.wav"), str(sounds / "a.wav")]
    assert listing.notes.problems == [(str(sounds / "gone.wav"), "no such file")]
    with pytest.raises(InputError, match=r"two.csv: row 4 names two files, 'a.wav' and 'b/c.wav'"):
        next(listing.found)


def test_a_part_of_a_tar_is_refused(sounds: Path) -> None:
    with tarfile.open(sounds / "x.tar", "w") as tar:
        tar.add(sounds / "a.wav", "a.wav")
    (sounds / "parts.csv").write_text("file_name,start,end\nx.tar,,\nx.tar,0,0.5\n")
    listing = list_sounds(sounds / "parts.csv")
    assert next(listing.found).name == str(sounds / "x.tar/a.wav")
    said = r"parts.csv: row 2 has a start and an end, but names a .tar \(x.tar\), .* leave both out"
    with pytest.raises(InputError, match=said):
        next(listing.found)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("file_name,start\na.wav,1\na.wav,3\n", "has 'start', which no part"),
        ("file_name,start,end\na.wav,0,1\na.wav,1,\n", r"\(1, such as row 2, 'start'\)"),
        ("file_name,onset,duration\na.wav,0.5,\n", r"\(1, such as row 1, 'onset'\)"),
    ],
)
def test_half_a_part_is_told(sounds: Path, rows: str, said: str) -> None:
    (sounds / "parts.csv").write_text(rows)
    with pytest.warns(UserWarning, match=said):
        found = names(list_sounds(sounds / "parts.csv"), sounds)
    assert found[-1] == "a.wav"


def test_columns_that_no_part_is_read_from_do_not_refuse_a_row(sounds: Path) -> None:
    (sounds / "cut.csv").write_text("file_name,youtube_id,start_time\na.wav,abc,30\n")
    assert names(list_sounds(sounds / "cut.csv"), sounds) == ["a.wav"]
    (sounds / "notes.csv").write_text("file_name,start_ms,end_date\na.wav,30,2020\n")
    with pytest.warns(UserWarning, match="start_ms"):
        assert names(list_sounds(sounds / "notes.csv"), sounds) == ["a.wav"]


def test_a_table_in_json_without_captions_gives_no_warning(sounds: Path) -> None:
    rows = [{"audio": "a.wav", "caption_language": "en"}, {"audio": "b/c"}]
    (sounds / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(list_sounds(sounds / "table.jsonl"), sounds) == ["a.wav", "b/c.wav"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("file_name,start_ms\na.wav,30\n", "has 'start_ms', which no part"),
        ("file_name,start,end\na.wav,1,\n", r"\(1, such as row 1, 'start'\)"),
        ("file_name,title\na.wav,caf\u00e9\n", "is not UTF-8"),
    ],
)
def test_a_table_that_is_called_captions_is_warned_of_like_others(
    sounds: Path, rows: str, said: str
) -> None:
    (sounds / "captions.csv").write_text(rows, encoding="cp1252")
    with pytest.warns(UserWarning, match=said):
        assert names(list_sounds(sounds / "captions.csv"), sounds) == ["a.wav"]


def test_what_is_no_source_is_refused(sounds: Path) -> None:
    (sounds / "list.txt").write_text("a.wav\n")
    with pytest.raises(InputError, match="neither a folder nor a sound .* give --list"):
        list_sounds(sounds / "list.txt")
    with pytest.raises(InputError, match="is a folder; leave --list out"):
        list_sounds(sounds, is_list=True)
    with pytest.raises(MissingFileError, match="no such file or folder"):
        list_sounds(sounds / "none.txt", is_list=True)
    for name in (sounds, sounds / "a.wav"):
        with pytest.raises(InputError, match="leave --relative-to out"):
            list_sounds(name, relative_to=sounds)
    (sounds / "list.txt").write_text("a.wav\n", encoding="utf-16")
    with pytest.raises(InputError, match="is UTF-16; write the list in UTF-8"):
        list(list_sounds(sounds / "list.txt", is_list=True).found)
    (sounds / "table.csv").write_text("file_name,start,end\n,1,2\n")
    with pytest.raises(InputError, match="row 1 names no file; write one in the column file_name$"):
        list(list_sounds(sounds / "table.csv").found)
    (sounds / "table.csv").write_text("file,start\na.wav,1\n")
    with pytest.raises(InputError, match=r"column file_name \(its columns are file, start\)$"):
        list(list_sounds(sounds / "table.csv").found)


def test_a_folder_that_is_not_there_has_no_sounds(tmp_path: Path) -> None:
    listing = list_sounds(tmp_path / "none")
    assert not listing.has_sounds()
    assert listing.covers(str(tmp_path.resolve() / "none/a.wav"), "")


def recorded(path: Path, member: str = "") -> Recording:
    return Recording(path=str(path), member=member, size=0, mtime_ns=0, digest="", seconds=1.0)


def test_a_recording_is_read_again(sounds: Path) -> None:
    with tarfile.open(sounds / "t.tar", "w") as tar:
        tar.add(sounds / "a.wav", "x/a.wav")
    whole = read_audio(sounds / "a.wav", 16_000)
    for recording, expected in (
        (recorded(sounds / "a.wav"), whole),
        (recorded(sounds / "t.tar", "x/a.wav"), whole),
        (recorded(sounds / "a.wav", "#t=0.5,1.5"), whole[8_000:24_000]),
    ):
        assert (read_audio(open_recording(recording), 16_000) == expected).all()


def test_a_recording_that_is_gone_is_said(sounds: Path) -> None:
    with pytest.raises(MissingFileError, match="x.wav: no such file; index its folder again"):
        open_recording(recorded(sounds / "x.wav"))
    with tarfile.open(sounds / "t.tar", "w") as tar:
        tar.add(sounds / "a.wav", "a.wav")
    with pytest.raises(MissingFileError, match="t.tar/b.wav: no such member"):
        open_recording(recorded(sounds / "t.tar", "b.wav"))


def test_an_empty_name_is_not_this_folder() -> None:
    with pytest.raises(InputError, match="name of the folder is empty"):
        list_sounds("")
