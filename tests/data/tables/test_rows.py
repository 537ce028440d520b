from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import pytest
from closed_folders import open_folder_for_all, without_privileges
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.tables.columns import audio_column, caption_columns, row_captions
from atr_moco_plugin.data.tables.rows import columns_of, json_entries, read_rows
from atr_moco_plugin.errors import InputError


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_first_row_without_columns_is_a_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows: list[dict[str, str]] = [{}, {"audio": "a.wav"}]
    path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
    assert list(read_rows(path)) == rows


def test_csv_rows_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(' File_Name ,caption\na.wav,"one, two"\n\nb.wav,"a\nb"\nc.wav\n')
    assert list(read_rows(path)) == [
        {"file_name": "a.wav", "caption": "one, two"},
        {"file_name": "b.wav", "caption": "a\nb"},
        {"file_name": "c.wav", "caption": ""},
    ]
    assert columns_of(path) == ("file_name", "caption")


@pytest.mark.filterwarnings("ignore:.*is read as Windows-1252")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("youtube_id,caption\nx,un caf\u00e9 \u201cplein\u201d\n".encode(encoding))
    assert list(read_rows(path)) == [
        {"youtube_id": "x", "caption": "un caf\u00e9 \u201cplein\u201d"}
    ]
    assert columns_of(path) == ("youtube_id", "caption")


def test_windows_1252_is_no_latin_1_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("file_name,caption\nBob\u2019s.wav,it doesn\u2019t\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"a.csv: is not UTF-8 \(line 2\) .*Bob\u2019s") as said:
        assert list(read_rows(path)) == [
            {"file_name": "Bob\u2019s.wav", "caption": "it doesn\u2019t"}
        ]
    assert len(said) == 1
    path.write_bytes(b"file_name,caption\nx.wav,caf\xc3")  # it ends within a character
    with pytest.warns(UserWarning, match="a.csv: is not UTF-8"):
        assert list(read_rows(path)) == [{"file_name": "x.wav", "caption": "caf\u00c3"}]


def test_what_is_neither_encoding_or_both_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"file_name,caption\na.wav,caf\xc3\xa9\nb.wav,caf\xe9\n")
    with pytest.raises(InputError, match="a.csv: line 2 is UTF-8 and line 3 is not; save it as"):
        list(read_rows(path))
    path.write_bytes(b"file_name,caption\nb.wav,caf\xe9\na.wav,caf\x81\n")
    with pytest.raises(InputError, match="line 3 has the byte 0x81, which is neither UTF-8 nor"):
        list(read_rows(path))


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
    with pytest.raises(ValueError, match="has no list of rows; write .* or that list under"):
        list(read_rows(path))
    path.write_text('{"audio": "a.wav"}\n["a.wav"]\n')
    with pytest.raises(ValueError, match="line 2 is not a JSON object; write one object a line"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_is_a_table(tmp_path: Path, name: str, indent: int | None) -> None:
    path = tmp_path / name
    rows = [{"Audio": "a.wav", "captions": ["x", "y"]}, {"audio": "b.wav", "captions": "z"}]
    path.write_text(json.dumps(rows, indent=indent))
    lower = [{"audio": "a.wav", "captions": ["x", "y"]}, rows[1]]
    assert list(read_rows(path)) == lower and columns_of(path) == ("audio", "captions")
    path.write_text(json.dumps([rows[1], "b.wav"]))
    with pytest.raises(ValueError, match=f"{name}: entry 2 is not a JSON object; write one for"):
        list(read_rows(path))


def test_json_with_its_rows_under_data_and_json_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"num": 1, "data": [{"audio": "a.wav", "caption": "x"}]}, indent=2))
    assert list(read_rows(path)) == [{"audio": "a.wav", "caption": "x"}]
    for other in ({"audio": ["a.wav"]}, ["a.wav"], 7):
        path.write_text(json.dumps(other))
        assert columns_of(path) == ()
        with pytest.raises(ValueError, match=r'a.json: has no list of rows; write \[\{"audio"'):
            list(read_rows(path))
    path.write_text(json.dumps({"Data": [{"Audio": "a.wav", "Caption": "x"}]}))
    assert list(read_rows(path)) == json_entries(path) == [{"audio": "a.wav", "caption": "x"}]
    path.write_text(json.dumps({"Data": [{"audio": "a.wav", "caption": "x"}], "data": []}))
    with pytest.raises(InputError, match="a.json: has the key 'data' twice in other letters"):
        columns_of(path)
    path.write_text(json.dumps({"rows": [{"audio": "a.wav", "caption": "x"}]}))
    assert columns_of(path) == () and json_entries(path) is None  # it may be no table at all
    said = "under 'rows', expected under \"data\": rename the key 'rows' to \"data\""
    with pytest.raises(InputError, match=said):
        list(read_rows(path))
    path.write_text('{"audio": "a.wav", "caption": "x"}\n{"audio": "b.wav", "caption": "y"}\n')
    with pytest.raises(InputError, match="one JSON value after another, .* call it a.jsonl"):
        list(read_rows(path))
    path.write_text("{")
    with pytest.raises(ValueError, match="a.json: is not JSON"):
        list(read_rows(path))
    path.write_text("[]")
    assert list(read_rows(path)) == [] and columns_of(path) == ()


def test_what_is_not_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(FileNotFoundError, match="a.csv: no such file"):
        list(read_rows(path))
    path.write_bytes(b"PK\x03\x04\x00\x00")
    with pytest.raises(ValueError, match="a.csv: is no text"):
        list(read_rows(path))
    for encoding in ("utf-16-le", "utf-32"):
        path.write_bytes("file_name,caption\n".encode(encoding))
        with pytest.raises(ValueError, match="give a CSV, TSV or JSON file in UTF-8"):
            list(read_rows(path))
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(ValueError, match="is no text"):
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
    for used in ("label", "start", "duration", "id", "recording", "source"):
        path.write_text(f"file_name,caption,{used},{used}\na,b,1,2\n")
        with pytest.raises(ValueError, match=f"has 2 columns '{used}'"):
            list(read_rows(path))


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_two_keys_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    for row, message in (
        ('{"file_name": "a", "caption": "b", "caption": "c"}', "has the key 'caption' twice"),
        ('{"file_name": "a", "Caption": "b", "caption": "c"}', "'caption' twice in other letters"),
    ):
        path.write_text(f"[{row}]" if suffix == "json" else row)
        with pytest.raises(ValueError, match=message):
            list(read_rows(path))


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


def test_a_row_may_end_in_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file_name,caption\na.wav,a dog barks,,\n")
    assert list(read_rows(path)) == [{"file_name": "a.wav", "caption": "a dog barks"}]


def test_rows_of_empty_cells_are_passed_over(tmp_path: Path) -> None:
    """The table was refused, since such a row names no audio."""
    path = tmp_path / "a.csv"
    path.write_text("file_name,caption\na.wav,a dog barks\n,\nb.wav,rain\n , \n,,,\n")
    assert [row["file_name"] for row in read_rows(path)] == ["a.wav", "b.wav"]


HEAD = "file_name,caption\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (HEAD + 'a.wav,"a dog barks\nb.wav,a cat\n', "line 2 to 3"),
        (HEAD + 'a.wav,one\nb.wav,"a dog barks\nc.wav,"a cat"\n', "line 3 to 4"),
        (HEAD + 'a.wav,"a dog" barks\n', "line 2"),
        (HEAD + 'a.wav,"a \\"dog\\", barks"\n', "line 2"),
        ('file_name;caption\na.wav;"a dog\n', "line 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is read with ';'")
def test_an_unclosed_quote_is_refused_with_its_line(tmp_path: Path, text: str, lines: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"a.csv: {lines} is not readable as CSV .*not closed"):
        list(read_rows(path))


@pytest.mark.parametrize(
    "text",
    [
        HEAD + 'a.wav,"a dog barks\nb.wav,a cat"\n',
        'caption,file_name\n"a dog,a.wav\na cat,B.WAV"\n',
        'audiocap_id,youtube_id,caption\n1,abcdefghijk,"a dog\n2,-bcdefghij_,a cat"\n',
    ],
)
def test_two_stray_quotes_that_take_a_row_in_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="a.csv: a quote in line 2 is not closed, so that the row"):
        list(read_rows(path))


def test_line_breaks_within_quotes_make_one_caption_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + 'a.wav,"a dog barks, \n and then,\r\na cat"\nb.wav,rain\n')
    assert [row_captions(row) for row in read_rows(path)] == [
        ["a dog barks, and then, a cat"],
        ["rain"],
    ]


@pytest.mark.parametrize(
    ("rows", "captions"),
    [
        ('a.wav\t"a dog barks\nb.wav\ta cat\n', ['"a dog barks', "a cat"]),
        ('a.wav\t"a dog\nb.wav\tbarks"\n', ['"a dog', 'barks"']),
        ('a.wav\t"Woof" says a dog\nb.wav\t"Woof"\n', ['"Woof" says a dog', '"Woof"']),
        # As csv and pandas quote, where it is needed.
        ('a.wav\t"a ""dog"" barks"\nb.wav\ta cat\n', ['a "dog" barks', "a cat"]),
        ('a.wav\t"a dog\nbarks"\nb.wav\t"a\tcat"\n', ["a dog\nbarks", "a\tcat"]),
    ],
)
def test_quotes_between_tabs_are_text_unless_the_file_shows_otherwise(
    tmp_path: Path, rows: str, captions: list[str]
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("file_name\tcaption\n" + rows)
    assert [row["caption"] for row in read_rows(path)] == captions


def test_a_tsv_file_with_quotes_everywhere_or_in_two_ways(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('"file_name"\t"caption"\n"a.wav"\t"a dog"\n"b.wav"\t"a ""cat"""\n')
    assert [row["caption"] for row in read_rows(path)] == ["a dog", 'a "cat"']
    path.write_text('"file_name"\t"caption"\n"a.wav"\t"a dog\n"b.wav"\t"a cat"\n')
    with pytest.raises(InputError, match="a.tsv: line 2 to 3 is not readable as CSV"):
        list(read_rows(path))
    path.write_text('file_name\tcaption\na.wav\t"Woof"\nb.wav\t"a ""cat"""\n')
    with pytest.raises(InputError, match="a.tsv: line 3 writes a quote .* and line 2 has quotes"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_the_separator_is_found_in_the_first_line(
    tmp_path: Path, name: str, separator: str, quoting: int
) -> None:
    path = tmp_path / name
    caption = 'a "dog", barks; then | a\tcat'
    with path.open("w", newline="") as file:
        rows = [("file_name", "id, or key", "caption"), ("a.wav", "1;5", caption)]
        csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
    odd = separator in ";|" or (separator == ",") == (name == "a.tsv")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (row,) = read_rows(path)
    assert row == {"file_name": "a.wav", "id, or key": "1;5", "caption": caption}
    assert [f"is read with {separator!r} between" in str(x.message) for x in said] == [True] * (
        odd and separator != "\t"
    )


def test_excels_line_on_the_separator_and_blank_lines_before_the_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"sep=;\r\n\r\nfile_name;caption\r\na.wav;a dog, barking\r\n")
    assert list(read_rows(path)) == [{"file_name": "a.wav", "caption": "a dog, barking"}]
    path.write_bytes(b"sep=;\r\n\r\nfile_name;caption\r\na.wav;a;dog\r\n")
    with pytest.raises(InputError, match="line 4 has 3 columns"):
        list(read_rows(path))


@pytest.mark.parametrize("title", ["Field recordings, 2024", "My sounds;;", "A title\n\nof two"])
@pytest.mark.parametrize("separator", ",;\t")
@pytest.mark.parametrize(
    "columns", [("File_Name", "Caption"), ("audio", "label"), ("youtube_id", "caption")]
)
def test_a_title_above_the_column_names_is_refused(
    tmp_path: Path, title: str, separator: str, columns: tuple[str, str]
) -> None:
    """The table was passed over, and names of files were trained on in place of its captions."""
    path = tmp_path / "a.csv"
    names, row = (separator.join(x) for x in (columns, ("a.wav", "a dog")))
    path.write_text(f"{title}\n{names}\n{row}\n")
    number = 2 + title.count("\n")
    known = ", ".join(columns).lower()
    said = rf"a.csv: line {number} has the column names \({known}\), expected in the first line"
    with pytest.raises(InputError, match=said):
        list(read_rows(path))


@pytest.mark.parametrize("last", ["", " ", "Unnamed: 2"])
def test_words_behind_the_last_named_column_are_refused(tmp_path: Path, last: str) -> None:
    """The end of a caption went into a column that no one reads."""
    path = tmp_path / "a.csv"
    path.write_text(f"file_name,caption,{last}\na.wav,a dog,\nb.wav,a dog barks, a car passes\n")
    with pytest.raises(InputError, match=r"line 3 has 'a car passes' behind the last column with"):
        list(read_rows(path))
    rows = ["a.wav,a dog, ", "b.wav,a car", "c.wav,a cat,17", "d.wav,rain,nan"]
    path.write_text("\n".join([f"file_name,caption,{last}", *rows]))
    assert [row["caption"] for row in read_rows(path)] == ["a dog", "a car", "a cat", "rain"]


def test_a_table_that_may_not_be_read_is_named() -> None:
    with open_folder_for_all() as root:
        path = root / "a.csv"
        path.touch(mode=0)
        with without_privileges(), pytest.raises(InputError, match="a.csv: cannot be read .Permis"):
            list(read_rows(path))


def test_two_separators_that_are_as_likely_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file_name,x;caption\na.wav,x;a dog\n")
    with pytest.raises(InputError, match="may be separated by ',' or ';'; take one separator"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        (("caption_10", "x", "caption_2", "caption"), ("caption", "caption_2", "caption_10")),
        (("caption", "caption.1", "caption.2"), ("caption", "caption.1", "caption.2")),
        (("caption", "caption_2", "caption_3"), ("caption", "caption_2", "caption_3")),
        (("caption", "caption 2"), ("caption", "caption 2")),
        (("caption 1", "caption (2)", "caption#3"), ("caption 1", "caption (2)", "caption#3")),
        (("captions_1", "caption2", "caption-3"), ("captions_1", "caption2", "caption-3")),
        (("text", "text.1", "label"), ("text", "text.1")),
        (("caption_1", "caption_7"), ("caption_1", "caption_7")),
        (("text", "caption"), ("caption",)),
        (("keywords", "caption_x"), ()),
    ],
)
def test_no_spelling_of_a_caption_column_is_lost(
    columns: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    assert caption_columns(columns) == taken


def test_columns() -> None:
    for name in ("caption", "captions", "text", "raw_text", "full_text"):
        assert caption_columns(("id", name)) == (name,)
    for name in ("file_name", "fname", "filename", "wav", "audio"):
        assert audio_column(("caption", name)) == name
    assert audio_column(("caption",)) is None


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_what_looks_like_captions_and_is_not_taken_is_named_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    columns = ("file_name", "caption", "caption_en", "text", "caption_id", "num_captions")
    if name == "a.csv":
        path.write_text(f"{','.join(columns)}\n" + "a,b,c,d,e,f\n" * 2)
    else:
        rows = [dict(zip(columns, "abcdef", strict=True))] * 2
        path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match=f"{name}: has 'caption_en', 'text', which no ") as said:
        assert [row_captions(row) for row in read_rows(path)] == [["b"], ["b"]]
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns_of(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_what_only_later_rows_of_json_have_is_named_too(tmp_path: Path, name: str) -> None:
    """The first row alone was looked at."""
    path = tmp_path / name
    rows: list[dict[str, object]] = [
        {"audio": "a.wav", "text": "one"},
        {"audio": "b.wav", "caption": "two", "start_ms": 3000, "end_ms": 9000},
        {"audio": "c.wav", "caption": "three", "text": "four", "start_ms": 4000},
    ]
    rows += rows[1:]
    path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
    for read in (read_rows, json_entries) if name == "a.json" else (read_rows,):
        with pytest.warns(UserWarning) as said:
            list(read(path))
        first, second = (str(warning.message) for warning in said)
        assert "a.json" in first and "has 'start_ms', 'end_ms', which no part" in first
        assert first.endswith("in seconds (first in row 2)")
        assert "has 'text', which no caption is taken from" in second
        assert second.endswith("(first in row 3)")


def test_captions_without_a_first_column_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file_name,description,caption_2\na.wav,a dog barks,a bark\n")
    with pytest.warns(UserWarning, match="begin with the column 'caption_2'"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"caption": " a dog barks "}, ["a dog barks"]),
        ({"caption": ""}, [""]),
        ({"caption": None}, [""]),
        ({"caption": "nan"}, [""]),
        ({"caption": " N/A "}, [""]),
        ({"caption": "nan nan"}, ["nan nan"]),
        ({"caption": "a", "caption_2": "#NAME?"}, ["a"]),
        ({"caption_1": "a", "caption_2": "", "caption_3": "c"}, ["a", "c"]),
        ({"caption": "a", "caption.1": "b", "caption.2": "c"}, ["a", "b", "c"]),
        ({"caption": "b", "caption_1": "a", "caption_2": "b"}, ["a", "b"]),
        ({"caption_1": "a", "caption_2": "a"}, ["a", "a"]),
        ({"captions": ["a \r\n dog", " b "]}, ["a dog", "b"]),
        ({"captions": ["a", "b"]}, ["a", "b"]),
        ({"captions": []}, []),
        ({"captions": '["it\'s a dog", "b"]'}, ["it's a dog", "b"]),
        ({"raw_text": "['a dog barks', \"it's loud\"]"}, ["a dog barks", "it's loud"]),
        ({"captions": "['a dog barks'\n 'a bark']"}, ["a dog barks", "a bark"]),
        ({"captions": '["rain falls", null]'}, ["rain falls", ""]),
        ({"captions": '["rain falls", NaN]'}, ["rain falls", ""]),
        ({"captions": "['wind blows', None]"}, ["wind blows", ""]),
        ({"captions": "['a dog barks' nan]"}, ["a dog barks", ""]),
        ({"captions": ["rain falls", None]}, ["rain falls", ""]),
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
    on_one_line = [re.sub(r"\s*[\r\n]+\s*", " ", text) for text in texts]
    assert row_captions({"captions": json.dumps(texts)}) == on_one_line
    assert row_captions({"captions": repr(texts)}) == on_one_line
