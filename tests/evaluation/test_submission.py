"""DCASE's files: both formats, what is read from them again, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from docs.pages import run_python
from sound_folders import write_sound
from tiny_bundle import SENTENCES, make_bundle

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation.submission import SubmissionFile, Submissions, write_submission


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_both_formats(tmp_path: Path) -> None:
    scores = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    with SubmissionFile(tmp_path / "dcase", "ours", ["a.wav", "b, c.wav"]) as file:
        file.write(["A dog, barking", 'He says "rain"'], scores)
    assert rows(tmp_path / "dcase" / "ours.scores.csv") == [
        ["index", "a.wav", "b, c.wav"],
        ["A dog, barking", "0.25", "0.75"],
        ['He says "rain"', "0.5", "0.5"],
    ]
    assert rows(tmp_path / "dcase" / "ours.files.csv") == [
        ["caption", "fname_1", "fname_2"],
        ["A dog, barking", "b, c.wav", "a.wav"],
        ['He says "rain"', "a.wav", "b, c.wav"],
    ]
    assert len(list((tmp_path / "dcase").iterdir())) == 2


def test_ten_files_a_query_and_scores_to_the_last_bit(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 40, generator=rng)
    files = [f"{i}.wav" for i in range(40)]
    with SubmissionFile(tmp_path, "ours", files) as file:
        for row in range(3):
            file.write([f"query {row}"], scores[row : row + 1])
        file.write(["query 0"], scores[:1])  # again
    found = rows(tmp_path / "ours.scores.csv")[1:]
    again = torch.tensor([[float(cell) for cell in row[1:]] for row in found])
    assert torch.equal(again, scores)
    best = rows(tmp_path / "ours.files.csv")
    assert best[0] == ["caption", *(f"fname_{i}" for i in range(1, 11))]
    for row, line in enumerate(best[1:]):
        assert line[1:] == [files[i] for i in scores[row].topk(10).indices.tolist()]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), SubmissionFile(tmp_path, "ours", ["a.wav"]) as file:
        file.write(["A dog barks"], torch.ones(1, 1))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Two clips have the file name 'a\.wav'"):
        SubmissionFile(tmp_path, "ours", ["a.wav", "b.wav", "a.wav"])


def test_the_systems_that_are_asked_for(tmp_path: Path) -> None:
    with Submissions(tmp_path, ["reranked_k4"], ["one", "two"], ["a.wav", "b.wav"]) as on_scores:
        for start in (0, 1):
            for system, best in (("dual", 0.0), ("reranked_k4", 1.0)):
                block = torch.tensor([[best, 1 - best]])
                on_scores("t2a", system, start, block, block > 0)
                on_scores("a2t", system, start, block, block > 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "t2a_reranked_k4.files.csv",
        "t2a_reranked_k4.scores.csv",
    ]
    assert [row[:2] for row in rows(tmp_path / "t2a_reranked_k4.files.csv")[1:]] == [
        ["one", "a.wav"],
        ["two", "a.wav"],
    ]


def test_from_embeddings(tmp_path: Path) -> None:
    text, audio = torch.eye(2), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    write_submission(tmp_path, "ours", ["one", "two"], ["a.wav", "b.wav"], text, audio)
    assert [row[1] for row in rows(tmp_path / "ours.files.csv")[1:]] == ["b.wav", "a.wav"]


@pytest.mark.parametrize(
    ("queries", "text", "audio", "message"),
    [
        (["one"], torch.eye(2), torch.eye(2), "There are 1 queries, but their embeddings"),
        (["one", "two"], torch.eye(2), torch.eye(3)[:2], "have 2 numbers, the files' 3"),
        (["one", "two"], torch.full((2, 2), torch.nan), torch.eye(2), "queries is not finite"),
        (
            ["one", "two"],
            torch.eye(2),
            torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
            "^Row 1 of the embeddings of the files, counted from 0, has the length 3, expected 1",
        ),
        (["one", "two"], torch.zeros(2, 2), torch.eye(2), "of the queries.* has the length 0, exp"),
    ],
)
def test_wrong_embeddings_are_refused(
    tmp_path: Path, queries: list[str], text: torch.Tensor, audio: torch.Tensor, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_submission(tmp_path, "ours", queries, ["a.wav", "b.wav"], text, audio)
    assert list(tmp_path.iterdir()) == []


def test_the_page_writes_the_files_of_a_blind_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/graded.md, with what it takes as given."""
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "bundle")
    for number in range(3):
        write_sound(tmp_path / "evaluation_audio" / f"{number}.wav", number)
    (tmp_path / "queries.txt").write_text("\n".join(SENTENCES[:2]))
    run_python("docs/graded.md")
    found = rows(tmp_path / "submission" / "Author_Institute_task6_1.scores.csv")
    assert found[0] == ["index", "0.wav", "1.wav", "2.wav"]
    assert [row[0] for row in found[1:]] == SENTENCES[:2]
