"""Which rows belong together, in all forms that a file may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atr_moco_plugin.analysis.pairs_file import read_pairs
from atr_moco_plugin.errors import InputError, MissingFileError

AUDIO = ["/sounds/rain.wav", "/sounds/dog.wav", "/sounds/sub/car.flac"]
TEXT = ["Rain falls", "A dog barks.", "A car passes", "Rain falls"]


def written(folder: Path, text: str) -> Path:
    (folder / "pairs.csv").write_text(text)
    return folder / "pairs.csv"


def test_numpys_integers(tmp_path: Path) -> None:
    path = tmp_path / "pairs.npy"
    np.save(path, np.array([[0, 3], [2, 1]], dtype=np.int32))
    assert read_pairs(path, None, None).rows.tolist() == [[0, 3], [2, 1]]
    np.save(path, np.array([1, 1, 0]))  # the first side's row of each row of the second
    assert read_pairs(path, None, None).rows.tolist() == [[1, 0], [1, 1], [0, 2]]


def test_a_table_of_row_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "text_row,audio_row\n3,0\n1,2\n")
    assert read_pairs(path, None, None).rows.tolist() == [[0, 3], [2, 1]]


def test_a_captions_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "file_name,caption_1,caption_2\nrain.wav,Rain falls,a dog barks\ncar.wav,A car passes,\n",
    )
    found = read_pairs(path, AUDIO, TEXT)
    # Equal sentences are partners of the clip, all of them.
    assert found.rows.tolist() == [[0, 0], [0, 3], [0, 1], [2, 2]]
    assert found.notes == []


def test_rows_of_parts_of_files(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "audio,start,end,text\nlong.wav,0,10,Rain falls\nlong.wav,10,20,A car passes\n"
        "dog.wav,0,5,A dog barks\n",
    )
    audio = ["/s/long.wav#t=10,20", "/s/long.wav#t=0,10", "/s/dog.wav"]
    assert read_pairs(path, audio, TEXT).rows.tolist() == [[1, 0], [1, 3], [0, 2], [2, 1]]


def test_what_has_no_embedding_is_left_out_and_told(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "audio,text\nrain.wav,Rain falls\ncat.wav,A cat\ndog.wav,A dog barks\ndog.wav,Snow\n",
    )
    found = read_pairs(path, AUDIO, TEXT)
    assert found.rows.tolist() == [[0, 0], [0, 3], [1, 1]]
    assert found.notes == [
        "2 of 4 pairs of pairs.csv are of what has no embedding, such as 'cat.wav' (row 2), 'Snow' "
        "(row 4), and are left out."
    ]


def test_a_sound_of_another_folder_is_not_meant(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "file_name,caption\ndog/1.wav,a dog\ncat/1.wav,a cat\nset/dog/2.mp3,a dog\n3.wav,a cat\n",
    )
    text = ["a dog", "a cat"]
    found = read_pairs(path, ["/set/dog/1.wav", "dog/2.wav", "/set/cat/3.wav"], text)
    assert found.rows.tolist() == [[0, 0], [1, 0], [2, 1]]
    assert found.notes == [
        "1 of 4 pairs of pairs.csv are of what has no embedding, such as 'cat/1.wav' (row 2), and "
        "are left out."
    ]
    # Folders also tell which of two is meant.
    found = read_pairs(path, ["/set/cat/1.wav", "/set/dog/1.flac", "/set/dog/2.wav"], text)
    assert found.rows.tolist() == [[1, 0], [0, 1], [2, 0]]
    relative = written(tmp_path, "file_name,caption\n../set/dog/1.wav,a dog\n")
    assert read_pairs(relative, ["/x/set/dog/1.wav"], text).rows.tolist() == [[0, 0]]


def test_rows_without_a_name_are_not_found(tmp_path: Path) -> None:
    path = written(tmp_path, "audio,text\nrain.wav,Rain falls\n,A dog barks\nrain.wav,!!\n")
    found = read_pairs(path, ["", "rain.wav", ""], ["Rain falls", "", "A dog barks"])
    assert found.rows.tolist() == [[1, 0]]


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    def refused(text: str, message: str, audio: list[str] | None = AUDIO) -> None:
        with pytest.raises(InputError, match=message):
            read_pairs(written(tmp_path, text), audio, TEXT)

    refused("a,b\n1,2\n", "has the columns 'a', 'b'; pairs need 'audio_row' and 'text_row', or")
    refused("audio,text\nx,y\n", r"none of its 1 pairs is of rows in both .* such as 'x' \(row 1\)")
    refused("audio,text\n", "none of its 0 pairs is of rows in both")
    refused("audio,text\nx,y\n", "rows of the first file of embeddings have none", None)
    refused("audio_row,text_row\n0,one\n", "row 1 has '0' and 'one', expected two row numbers")
    refused("audio_row,text_row\n", "has no pair")
    (tmp_path / "pairs.jsonl").write_text('{"audio_row": 0, "text_row": 0}\n{"audio_row": 1}\n')
    with pytest.raises(InputError, match="row 2 has 1 and None, expected two row numbers"):
        read_pairs(tmp_path / "pairs.jsonl", None, None)
    with pytest.raises(MissingFileError, match="no such file of pairs"):
        read_pairs(tmp_path / "none.csv", None, None)
    for array in (np.zeros((2, 2)), np.zeros((2, 3), dtype=int), np.zeros((1, 1, 2), dtype=int)):
        np.save(tmp_path / "pairs.npy", array)
        with pytest.raises(InputError, match=r"pairs are integers \[P, 2\]"):
            read_pairs(tmp_path / "pairs.npy", None, None)
    (tmp_path / "pairs.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"cannot be read as \.npy"):
        read_pairs(tmp_path / "pairs.npy", None, None)


def test_rows_of_json_name_their_sound_each_in_its_way_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"audio": "rain.wav", "text": "Rain falls"}\n{"text": "A dog barks."}\n'
        '{"file_name": "car.flac", "text": "A car passes"}\n'
    )
    found = read_pairs(tmp_path / "p.jsonl", AUDIO, TEXT)
    assert found.rows.tolist() == [[0, 0], [0, 3], [2, 2]]
    assert "1 of 3 pairs of p.jsonl are of what has no embedding" in found.notes[0]


def test_all_rows_of_a_sound_are_partners_of_its_sentences(tmp_path: Path) -> None:
    """As in a matrix with one row of audio for each caption."""
    path = written(tmp_path, "audio,text\ndog.wav,A dog barks\nrain.wav,Rain falls\n")
    audio = ["/s/dog.wav", "/s/rain.wav", "/s/dog.wav"]
    assert read_pairs(path, audio, TEXT).rows.tolist() == [[0, 1], [2, 1], [1, 0], [1, 3]]


def test_a_name_that_two_rows_have_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "audio,text\na.wav,Rain falls\n")
    with pytest.raises(InputError, match=r"'a\.wav' may be the clip '/one/a\.wav' or '/two/a\.wav"):
        read_pairs(path, ["/one/a.wav", "/two/a.wav"], TEXT)
