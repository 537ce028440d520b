from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from atr_moco_plugin.commands.main import main
from atr_moco_plugin.retriever import AudioTextRetriever

NAMES = ["a.wav", "b.flac", "sub/c.wav"]


def classify(bundle: Path, *arguments: object) -> int:
    return main(["classify", "--model", str(bundle), "--device", "cpu", *map(str, arguments)])


def test_json_has_the_scores_of_the_retriever(
    bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--labels", "dog, rain,siren", "--template", "the sound of {}", "--json"]
    assert classify(bundle, folder, *options) == 0
    found = json.loads(capfd.readouterr().out)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    files = [folder / name for name in NAMES]
    want = retriever.classify(files, ["dog", "rain", "siren"], ["the sound of {}"])
    assert [x["path"] for x in found["sounds"]] == [str(file) for file in files]
    for sound, scores in zip(found["sounds"], want.scores.tolist(), strict=True):
        assert list(sound["scores"]) == ["dog", "rain", "siren"]
        assert list(sound["scores"].values()) == pytest.approx(scores, abs=1e-4)
        assert sound["label"] == want.labels[scores.index(max(scores))]
    assert [Path(name).name for name, _ in found["broken"]] == ["broken.wav"]


def test_csv_and_table(bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert classify(bundle, folder, "--labels", "dog,rain", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [Path(row["path"]).name for row in rows] == ["a.wav", "b.flac", "c.wav"]
    assert all(float(row["dog"]) + float(row["rain"]) == pytest.approx(1, abs=1e-5) for row in rows)
    assert classify(bundle, folder, "--labels", "dog,rain", "--top", "2") == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [row["label"] for row in rows]
    assert all("dog" in line and "rain" in line for line in lines)


def test_phrases_of_a_label_come_from_a_file(
    bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = {"animal": ["a dog barks", "a cat"], "weather": ["rain falls"]}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(labels))
    assert classify(bundle, folder, "--labels-file", file, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    want = retriever.classify([folder / name for name in NAMES], labels)
    scores = [list(sound["scores"].values()) for sound in found["sounds"]]
    assert scores == [pytest.approx(row, abs=1e-4) for row in want.scores.tolist()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", " , "], "no label"),
        (["--labels", "dog,dog"], "'dog' is there twice"),
        (["--labels", "dog"], "A single label fits every sound"),
        (["--labels", "dog", "--template", "a sound"], "must have {} once"),
        (["--labels-file", "nowhere.txt"], "no such file of labels"),
        (["--labels-file", "bad.json"], "bad.json must be a list of labels"),
        (["--labels-file", "twice.json"], "'dog' is there twice"),
        (["--labels-file", "bad.JSON"], "bad.JSON must be a list of labels"),
        (["--labels-file", "labels.csv"], "labels.csv is a table"),
        (["--labels", "...,rain"], "'...' has no word"),
        (["--labels", "dog,rain", "--top", "1", "--csv"], "--top is for the table, but --csv and"),
        (["--labels", "dog,rain", "--top", "2", "--json"], "--top is for the table, but --csv and"),
    ],
)
def test_wrong_input_is_one_sentence(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('{"dog": "a dog"}')
    Path("bad.JSON").write_text('{"dog": "a dog"}')
    Path("twice.json").write_text('{"dog": ["a dog"], "dog": ["a hound"]}')
    assert classify(bundle, folder, *arguments) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ERROR: ") and message in error


def test_a_sound_that_cannot_be_read_is_said_with_the_reason(
    bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert classify(bundle, folder / "broken.wav", "--labels", "dog,rain") == 2
    assert "not readable as audio" in capfd.readouterr().err.splitlines()[-1]
