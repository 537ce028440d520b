from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.tables import (
    audio_column,
    caption_columns,
    columns_of,
    read_rows,
    row_captions,
)


def test_csv_rows_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(' File_Name ,caption\na.wav,"one, two"\n\nb.wav,"a\nb"\nc.wav\n')
    assert list(read_rows(path)) == [
        {"file_name": "a.wav", "caption": "one, two"},
        {"file_name": "b.wav", "caption": "a\nb"},
        {"file_name": "c.wav", "caption": ""},
    ]
    assert columns_of(path) == ("file_name", "caption")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("youtube_id,caption\nx,un caf\u00e9 bruyant\n".encode(encoding))
    assert list(read_rows(path)) == [{"youtube_id": "x", "caption": "un caf\u00e9 bruyant"}]


def test_a_file_that_ends_within_a_character_is_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"youtube_id,caption\nx,caf\xc3")
    assert list(read_rows(path)) == [{"youtube_id": "x", "caption": "caf\u00c3"}]


def test_tabs_by_suffix_or_by_the_first_line(tmp_path: Path) -> None:
    for name in ("a.tsv", "a.csv"):
        path = tmp_path / name
        path.write_text("fname\tcaption\na.wav\tone, two\n")
        assert list(read_rows(path)) == [{"fname": "a.wav", "caption": "one, two"}]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"Audio": "a.wav", "captions": ["x", "y"]}\n\n{"audio": "b.wav"}\n')
    assert list(read_rows(path)) == [
        {"audio": "a.wav", "captions": ["x", "y"]},
        {"audio": "b.wav"},
    ]
    path.write_text('{"audio": "a.wav"}\n{"audio": ')
    with pytest.raises(ValueError, match=r"a.jsonl: line 2 is not JSON"):
        list(read_rows(path))
    path.write_text('["a.wav"]\n')
    with pytest.raises(ValueError, match="line 1 is not a JSON object; write one object a line"):
        list(read_rows(path))


def test_what_is_not_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(FileNotFoundError, match="a.csv: no such file"):
        list(read_rows(path))
    path.write_bytes(b"PK\x03\x04\x00\x00")
    with pytest.raises(ValueError, match="a.csv: is not a text file"):
        list(read_rows(path))
    path.write_bytes("file_name,caption\n".encode("utf-16"))
    with pytest.raises(ValueError, match="give a CSV, TSV or JSON file in UTF-8 or Latin-1"):
        list(read_rows(path))
    path.write_text("file_name,caption\na.wav,a dog barks, then howls\n")
    with pytest.raises(ValueError, match="line 2 has 3 columns, the first line has 2; put capt"):
        list(read_rows(path))
    path.write_text('file_name,caption\na.wav,"' + "word " * 30_000)
    with pytest.raises(ValueError, match="not readable as CSV .*quote that is not closed"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["caption", "Caption ", "caption_1", "file_name"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{name},file_name,caption,caption_1,x,x,,\na,b,c,d,1,2,3,4\n")
    with pytest.raises(ValueError, match=f"a.csv: has 2 columns '{name.strip().lower()}'"):
        list(read_rows(path))
    path.write_text("file_name,caption,x,x,,\nb,c,1,2,3,4\n")
    assert len(list(read_rows(path))) == 1


def test_line_ends_marks_and_long_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"\ufefffile_name,caption{end}a.wav,a dog{end}{end}".encode())
        assert list(read_rows(path)) == [{"file_name": "a.wav", "caption": "a dog"}]
    path.write_text(f"file_name,caption\na.wav,{'dog ' * 30_000}\n")
    assert len(list(read_rows(path))) == 1
    path.write_text(f"file_name,caption\na.wav,{'dog ' * 40_000}\n")
    with pytest.raises(ValueError, match="a.csv: line 2 is not readable as CSV .*field larger"):
        list(read_rows(path))
    path.write_bytes(b"file_name,caption\na.wav,caf\xc3\xa9\nb.wav,caf\xe9\n")
    assert [row["caption"] for row in read_rows(path)] == ["caf\xc3\xa9", "caf\xe9"]


def test_a_row_may_end_in_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file_name,caption\na.wav,a dog barks,,\n")
    assert list(read_rows(path)) == [{"file_name": "a.wav", "caption": "a dog barks"}]


def test_columns() -> None:
    assert caption_columns(("caption_10", "x", "caption_2", "caption")) == (
        "caption_2",
        "caption_10",
    )
    for name in ("caption", "captions", "text", "raw_text", "full_text"):
        assert caption_columns(("id", name)) == (name,)
    assert caption_columns(("text", "caption")) == ("caption",)
    assert caption_columns(("keywords", "caption_x")) == ()
    for name in ("file_name", "fname", "filename", "wav", "audio"):
        assert audio_column(("caption", name)) == name
    assert audio_column(("caption",)) is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"caption": " a dog barks "}, ["a dog barks"]),
        ({"caption": ""}, [""]),
        ({"caption": None}, [""]),
        ({"caption_1": "a", "caption_2": "", "caption_3": "c"}, ["a", "", "c"]),
        ({"captions": ["a", "b"]}, ["a", "b"]),
        ({"captions": []}, []),
        ({"captions": '["it\'s a dog", "b"]'}, ["it's a dog", "b"]),
        ({"raw_text": "['a dog barks', \"it's loud\"]"}, ["a dog barks", "it's loud"]),
        ({"captions": "['a dog barks'\n 'a bark']"}, ["a dog barks", "a bark"]),
        ({"caption": "[music]"}, ["[music]"]),
        ({"caption": "[laughs] it's a man ['sic']"}, ["[laughs] it's a man ['sic']"]),
        ({"caption": "[1, 2]"}, ["[1, 2]"]),
        ({"caption": "['unclosed]"}, ["['unclosed]"]),
        ({"file_name": "a.wav"}, []),
    ],
)
def test_captions_of_a_row(row: dict[str, object], expected: list[str]) -> None:
    assert row_captions(row) == expected


@given(st.lists(st.text().map(str.strip), min_size=1, max_size=4))
def test_lists_in_a_cell_are_read_in_both_notations(texts: list[str]) -> None:
    assert row_captions({"captions": json.dumps(texts)}) == texts
    assert row_captions({"captions": repr(texts)}) == texts
