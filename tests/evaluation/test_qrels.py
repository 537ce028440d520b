"""Judgements from a file: the three formats, how names are found, and every wrong one refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.retrieval_set import RetrievalSet, make_retrieval_set
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.evaluation.clip_names import ClipNames
from atr_moco_plugin.evaluation.qrels import Qrels, read_qrels, write_graded_qrels
from atr_moco_plugin.evaluation.trec import caption_ids, trec_id


def a_set() -> RetrievalSet:
    clips = [
        Clip("rain.wav", ("Rain falls on a roof.", "It rains"), "/data/rain.wav"),
        Clip("dogs & co.wav", ("A dog barks",), "/data/dogs & co.wav"),
        Clip("cars/1.wav", ("A car passes", "It rains"), "/data/cars/1.flac"),
    ]
    return make_retrieval_set(clips, "clip", "set")


def written(folder: Path, text: str, name: str = "judged.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def matrix(qrels: Qrels) -> list[list[int]]:
    return qrels.block(0, len(qrels.queries)).tolist()


def test_dcases_table_has_a_list_of_files_a_row(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "query,audio_filenames\n"
        "\"Rain falls on a roof.\",\"['rain.wav', '1.wav']\"\n"
        "A dog barks,['dogs & co.wav']\n"
        "A car passes,[]\n",
    )
    qrels = read_qrels(path, a_set())
    assert (qrels.name, qrels.clips) == ("judged.csv", 3)
    assert qrels.queries.tolist() == [0, 2, 3]
    assert matrix(qrels) == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert qrels.relevant.tolist() == [2, 1, 0]


def test_a_table_with_a_grade_a_row(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "query,file_name,grade\n"
        "A car passes,cars/1.wav,3\n"
        "a car passes!,rain.wav,1\n"  # the same text after normalising
        "A dog barks,dogs & co,2.0\n"
        "A dog barks,rain.wav,0\n",
    )
    qrels = read_qrels(path, a_set())
    assert qrels.queries.tolist() == [2, 3]
    assert matrix(qrels) == [[0, 2, 0], [1, 0, 3]]


def test_a_sentence_that_may_be_two_captions_is_refused(tmp_path: Path) -> None:
    """The first was asked, with the judgements of the other."""
    clips = [Clip("a.wav", ("Dog, barks?!",), "a.wav"), Clip("b.wav", ("dog barks",), "b.wav")]
    retrieval_set = make_retrieval_set(clips, "clip", "set")
    text = "query,item,grade\ndog barks,b.wav,1\n"
    assert read_qrels(written(tmp_path, text), retrieval_set).queries.tolist() == [1]
    path = written(tmp_path, text + "Dog barks.,b.wav,1\n")
    with pytest.raises(InputError) as error:
        read_qrels(path, retrieval_set)
    assert str(error.value) == (
        f"{path}: row 2 asks for 'Dog barks.', which may be the caption 'Dog, barks?!' or "
        "'dog barks'; write it as the split has it."
    )


def test_lists_may_have_a_grade(tmp_path: Path) -> None:
    rows = [
        {"query": "It rains", "audio_filenames": ["rain.wav"], "grade": 2},
        {"query": "It rains", "audio_filenames": ["1.wav"], "grade": 1},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "judged.jsonl")
    qrels = read_qrels(path, a_set())
    assert qrels.queries.tolist() == [1]  # the first of the two captions with this text
    assert matrix(qrels) == [[2, 0, 1]]


def test_what_is_written_for_trec_is_read_again(tmp_path: Path) -> None:
    retrieval_set = a_set()
    text = "query,item,grade\nIt rains,rain.wav,2\nIt rains,1.wav,0\nA dog barks,dogs & co.wav,1\n"
    qrels = read_qrels(written(tmp_path, text), retrieval_set)
    keys = [clip.key for clip in retrieval_set.clips]
    captions = caption_ids(keys, retrieval_set.caption_to_audio, len(retrieval_set.captions))
    write_graded_qrels(tmp_path / "trec", qrels, [trec_id(key) for key in keys], captions)
    file = tmp_path / "trec" / "t2a_graded.qrels"
    assert "dogs%20%26%20co.wav#0 0 dogs%20%26%20co.wav 1\n" in file.read_text()
    again = read_qrels(file, retrieval_set)
    for one, other in zip(qrels[1:], again[1:], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_pair_or_a_row_twice_counts_once(tmp_path: Path) -> None:
    pairs = "query,item,grade\n" + 2 * "A dog barks,rain.wav,2\n"
    assert matrix(read_qrels(written(tmp_path, pairs), a_set())) == [[2, 0, 0]]
    rows = "query,audio_filenames\n" + 2 * "A dog barks,\"['rain.wav', 'rain.wav']\"\n"
    assert matrix(read_qrels(written(tmp_path, rows), a_set())) == [[1, 0, 0]]


def test_queries_within_a_block_of_captions(tmp_path: Path) -> None:
    text = "query,item,grade\nIt rains,rain.wav,1\nA car passes,1.wav,1\n"
    qrels = read_qrels(written(tmp_path, text), a_set())
    assert [qrels.within(a, b) for a, b in ((0, 1), (0, 2), (1, 5), (2, 3), (3, 5))] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    assert qrels.block(1, 2).tolist() == [[0, 0, 1]]
    assert qrels.block(1, 1).shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,item,grade\n", "has no row"),
        ("sentence,item,grade\na,b,1\n", "none for the sentence, such as 'query'"),
        ("query,sound,grade\na,b,1\n", "none for the clip, such as 'item'"),
        ("query,item\nA dog barks,rain.wav\n", "add the grade of each pair"),
        ("query,item,grade\n ,rain.wav,1\n", "row 1 has no query"),
        (
            "query,item,grade\nA dog barks,rain.wav,1\nA cat,rain.wav,1\n",
            r"1 of 2 rows ask for what is no caption of this split, such as 'A cat' \(row 2\)",
        ),
        (
            "query,item,grade\nA dog barks,rain.wav,1\nA dog barks,cat.wav,1\n",
            r"1 of 2 judged clips are not in this split, such as 'cat.wav' \(row 2\)",
        ),
        (
            "query,item,grade\nA dog barks,rain.wav,1\nA dog barks,rain.wav,2\n",
            "row 2 gives 'rain.wav' the grade 2 for 'A dog barks', an earlier one 1",
        ),
        (
            "query,audio_filenames\nA dog barks,['rain.wav']\nA dog barks,['1.wav']\n",
            "row 1 and row 2 give 'A dog barks' different files",
        ),
        ("query,audio_filenames\nA dog barks,rain.wav\n", "row 1, column 'audio_filenames' is no"),
        ("query,audio_filenames\nA dog barks,[1]\n", "is no list of files"),
        ("query,audio_filenames\nA dog barks,{[]: 1}\n", "is no list of files"),
        ("query,item,grade\nA dog barks,rain.wav,-1\n", "row 1 has the grade '-1'"),
        ("query,item,grade\nA dog barks,rain.wav,1.5\n", "the grade '1.5', expected a whole"),
        ("query,item,grade\nA dog barks,rain.wav,inf\n", "the grade 'inf', expected a whole"),
        ("query,item,grade\nA dog barks,rain.wav,1e30\n", "the grade '1e30', expected a whole"),
        ("query,item,grade\nA dog barks,rain.wav,good\n", "the grade 'good', expected a whole"),
        ("query,item,grade\nA dog barks,rain.wav,\n", "the grade '', expected a whole"),
        ("query,item,grade\nA dog barks,rain.wav,0\n", "no clip is relevant to any query"),
        ("query,audio_filenames\nA dog barks,[]\n", "no clip is relevant to any query"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_qrels(written(tmp_path, text), a_set())
    assert str(tmp_path / "judged.csv") in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ('"audio_filenames": ["rain.wav"]', '"audio_filenames": ["1.wav"], "grade": 0'),
            "row 2 has 'grade', which the first row lacks",
        ),
        (
            ('"item": "rain.wav", "grade": 1', '"fnames": ["1.wav"], "grade": 1'),
            "row 2 has 'fnames', which the first row lacks",
        ),
        (
            ('"fnames": ["rain.wav"]', '"item": "1.wav"'),
            "row 2, column 'fnames' is no list of files",
        ),
        (
            ('"item": "rain.wav", "grade": 1', '"item": "1.wav"'),
            "row 2 has the grade 'None', expected a whole number",
        ),
    ],
)
def test_rows_of_json_with_other_columns_than_the_first_are_refused(
    tmp_path: Path, rows: tuple[str, str], message: str
) -> None:
    """A grade that only later rows had was not read, and the figures were others."""
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(f'{{"query": "A dog barks", {row}}}\n' for row in rows))
    with pytest.raises(InputError, match=message):
        read_qrels(path, a_set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain.wav#0 0 rain.wav\n", "line 1 has 3 fields, expected four"),
        ("\nrain.wav#9 0 rain.wav 1\n", r"such as 'rain.wav#9' \(line 2\)"),
        ("rain.wav#0 0 cat.wav 1\n", r"such as 'cat.wav' \(line 1\)"),
        ("rain.wav#0 0 rain.wav x\n", "line 1 has the grade 'x'"),
    ],
)
def test_a_wrong_trec_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_qrels(written(tmp_path, text, "t2a.qrels"), a_set())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file of relevance judgements"):
        read_qrels(tmp_path / "none.csv", a_set())


def test_a_trec_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "t2a.qrels").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_qrels(tmp_path / "t2a.qrels", a_set())


def test_clips_are_found_by_key_then_file_then_stem() -> None:
    clips = [
        Clip("a", ("x",), "/data/one.wav"),
        Clip("one.wav", ("x",), "/data/two.wav"),
        Clip("sub/three.mp3", ("x",), Segment("/data/sub/three.mp3", 0.0, 1.0)),
        Clip("t", ("x",), FileSlice(Path("/data/x.tar"), 0, 1, "deep/f\u00fcnf.flac")),
        Clip("toy-1", ("x",), object()),
        Clip("left/same.wav", ("x",), "/data/left/same.wav"),
        Clip("right/same.wav", ("x",), "/data/right/same.wav"),
    ]
    asked = ["/old/sub/three.wav", "right/same.wav", "elsewhere/three.wav"]
    names = ClipNames.of(clips, "judged.csv", asked)
    found = ["a", "one.wav", "two.wav", "/old/sub/three.wav", "fu\u0308nf.wav", "toy-1", "none"]
    assert [names.find(name) for name in found] == [0, 1, 1, 2, 3, 4, None]
    assert names.find("right/same.wav") == 6
    assert names.find("elsewhere/three.wav") is None
    with pytest.raises(InputError, match="may be the clip 'left/same.wav' or 'right/same.wav'"):
        names.find("same.wav")
