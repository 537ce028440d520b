from __future__ import annotations

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from atr_moco_plugin.commands.main import main
from atr_moco_plugin.ids import caption_id, clip_id
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings
from atr_moco_plugin.search.partial import PartialEmbeddings

NAMES = ["a.wav", "b.flac", "sub/c.wav"]


@pytest.fixture
def want(bundle: Path, folder: Path) -> np.ndarray:
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    return retriever.embed_audio([folder / name for name in NAMES]).numpy()


def embed(bundle: Path, *arguments: object) -> int:
    return main(["embed", "--model", str(bundle), "--device", "cpu", *map(str, arguments)])


def test_safetensors_has_sounds_and_sentences_in_order(
    bundle: Path, folder: Path, want: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a dog\na cat\n")
    out = tmp_path / "out.safetensors"
    assert embed(bundle, folder, "--text", text, "--output", out) == 0
    with safe_open(out, framework="numpy") as file:
        np.testing.assert_allclose(file.get_tensor("audio"), want, atol=1e-5)
        assert file.get_tensor("audio").dtype == np.float32
        paths = [str(folder / name) for name in NAMES]
        assert json.loads(file.metadata()["paths"]) == paths
        assert file.get_tensor("clip_ids").tolist() == [clip_id("sounds", x) for x in NAMES]
        assert json.loads(file.metadata()["sentences"]) == ["a dog", "a cat"]
        ids = [caption_id("a dog"), caption_id("a cat")]
        assert file.get_tensor("caption_ids").tolist() == ids
        retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
        assert json.loads(file.metadata()["about"])["fingerprint"] == retriever.fingerprint
        np.testing.assert_allclose(
            file.get_tensor("text"), retriever.embed_text(["a dog", "a cat"]), atol=1e-6
        )
    assert "broken.wav" in capfd.readouterr().err
    assert out.stat().st_mode == text.stat().st_mode
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out.safetensors", "sounds", "text.txt"]


def test_clip_ids_do_not_depend_on_where_a_folder_is(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "tables" / "t.csv"
    table.parent.mkdir()
    table.write_text("file_name\na.wav\nsub/c.wav\n")
    out = tmp_path / "out.npy"
    assert embed(bundle, table, "--relative-to", folder, "--output", out) == 0
    ids = json.loads((tmp_path / "out.npy.json").read_text())["clip_ids"]
    assert ids == [clip_id("t.csv", name) for name in ("a.wav", "sub/c.wav")]


def test_npy_has_the_names_beside_it(
    bundle: Path, folder: Path, want: np.ndarray, tmp_path: Path
) -> None:
    assert embed(bundle, folder, "--output", tmp_path / "out.npy") == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy", allow_pickle=False), want, atol=1e-5)
    beside = json.loads((tmp_path / "out.npy.json").read_text())
    assert beside["paths"] == [str(folder / name) for name in NAMES]
    assert len(beside["clip_ids"]) == 3
    assert beside["sha256"] == hashlib.sha256((tmp_path / "out.npy").read_bytes()).hexdigest()


def test_parquet_has_a_row_each(
    bundle: Path, folder: Path, want: np.ndarray, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert embed(bundle, folder, "--output", tmp_path / "out.parquet") == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column("kind").to_pylist() == ["audio"] * 3
    assert table.column("name").to_pylist() == [str(folder / name) for name in NAMES]
    np.testing.assert_allclose(table.column("embedding").to_pylist(), want, atol=1e-5)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_it_goes_on_where_it_was_interrupted(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.npy"
    whole = tmp_path / "whole.npy"
    assert embed(bundle, folder, "--output", whole) == 0
    # Interrupted before the output is written: what was embedded stays.
    with monkeypatch.context() as patch:
        patch.setattr("atr_moco_plugin.search.embeddings_file.write_embeddings", _interrupt)
        assert embed(bundle, folder, "--output", out) == 130
    assert embed(bundle, folder, "--output", out, "--dtype", "bfloat16") == 2
    assert "another model or dtype" in capfd.readouterr().err
    assert embed(bundle, folder, "--output", out) == 0
    assert "3 are done already." in capfd.readouterr().err
    np.testing.assert_array_equal(np.load(out), np.load(whole))
    assert not (tmp_path / "out.npy.partial").exists()


def test_files_that_were_swapped_with_their_times_are_embedded_again(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, one, other = tmp_path / "out.npy", folder / "a.wav", folder / "z.wav"
    content = one.read_bytes()
    other.write_bytes(content[:44] + content[44:][::-1])  # as long
    for file in (one, other):
        os.utime(file, (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr("atr_moco_plugin.search.embeddings_file.write_embeddings", _interrupt)
        assert embed(bundle, folder, "--output", out) == 130
    time.sleep(0.02)  # a kernel's clock ticks every few milliseconds
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)
    assert embed(bundle, folder, "--output", out) == 0
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    want = retriever.embed_audio([folder / name for name in (*NAMES, "z.wav")]).numpy()
    np.testing.assert_allclose(np.load(out), want, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.npy"], "nothing to embed"),
        (["FOLDER", "--output", "x.txt"], "the suffix must be one of .safetensors, .npy, .parquet"),
        (["FOLDER", "--text", "TEXT", "--output", "x.npy"], "a .npy holds one table"),
        (["EMPTY", "--output", "x.npy"], "no sound"),
        (["FOLDER", "--output", "empty.npy"], "empty.npy is a folder"),
        (["FOLDER", "--output", "TEXT/x.npy"], "TEXT/x.npy cannot be written (File exists)"),
        (["BROKEN", "--output", "x.npy"], "no sound can be read, such as"),
        (["--text", "nowhere.txt", "--output", "x.npy"], "no such file"),
        (["--text", "TEXT", "--list", "--output", "x.npy"], "give FOLDER, or leave them out"),
        (["--text", "BLANK", "--output", "x.npy"], "line 2: ' ' has no word"),
        (["--text", "a.CSV", "--output", "x.npy"], "a.CSV is a table: give a text file with one"),
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
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.npy").mkdir()
    Path("TEXT").write_text("a dog\n")
    Path("BLANK").write_text("a dog\n \n")
    places = {"FOLDER": folder, "EMPTY": tmp_path / "empty", "BROKEN": folder / "broken.wav"}
    assert embed(bundle, *(places.get(x, x) for x in arguments)) == 2
    said = capfd.readouterr().err.strip()
    error = said.splitlines()[-1]
    assert error.startswith("ERROR: ") and message in error
    assert "BROKEN" in arguments or "recording/s" not in said  # before any work
    assert not (tmp_path / "x.npy").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_that_can_read_nothing_leaves_the_work_of_an_earlier_one(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        patch.setattr("atr_moco_plugin.search.embeddings_file.write_embeddings", _interrupt)
        assert embed(bundle, folder, "--output", out) == 130
    assert embed(bundle, folder / "broken.wav", "--output", out) == 2
    assert embed(bundle, folder, "--output", out) == 0
    assert "3 are done already." in capfd.readouterr().err


def test_names_that_no_safetensors_holds_are_refused_before_the_work(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    out, text = tmp_path / "out.safetensors", tmp_path / "text.txt"
    text.write_text("a dog\nrain falls\n")
    limit = "atr_moco_plugin.search.embeddings_file.MAX_NAMES_BYTES"
    for given in ([folder], ["--text", text], [folder, "--text", text]):
        monkeypatch.setattr(limit, 20)
        assert embed(bundle, *given, "--output", out) == 2
        said = capfd.readouterr().err
        assert "out.safetensors: a .safetensors holds" in said and "give .parquet" in said
        assert "recording/s" not in said and not list(tmp_path.glob("out*"))
        assert embed(bundle, *given, "--output", tmp_path / "x.npy") == (2 if len(given) > 2 else 0)
        capfd.readouterr()
    monkeypatch.setattr(limit, 10_000)
    assert embed(bundle, folder, "--output", out) == 0


def test_the_length_of_names_is_that_in_the_file(tmp_path: Path) -> None:
    names = ['a "quoted" \\ one', "caf\xe9 \N{DOG FACE}", os.fsdecode(b"\xff\n.wav")] * 100
    rows = Rows(np.eye(300, 4, dtype=np.float32), names, np.arange(300))
    write_embeddings(tmp_path / "a.safetensors", Embeddings({"audio": rows}))
    header = int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")
    size = sum(len(json.dumps(json.dumps(name))) for name in names)
    assert size < header < size + 400


def test_one_command_at_a_time(
    bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    with PartialEmbeddings(tmp_path / "out.npy.partial", {}):
        assert embed(bundle, folder, "--output", out) == 2
    assert "is in use" in capfd.readouterr().err


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_in_every_command(
    end: str, bundle: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file with carriage returns alone was one sentence."""
    lines, text = ["a dog", "rain\u2028falls", "a siren"], tmp_path / "text.txt"
    text.write_bytes("".join(f"{line}{end}" for line in lines).encode("utf-8-sig"))
    assert embed(bundle, "--text", text, "--output", tmp_path / "out.npy") == 0
    assert json.loads((tmp_path / "out.npy.json").read_text())["sentences"] == lines
    capfd.readouterr()
    model = ["--model", str(bundle), "--device", "cpu"]
    assert main(["classify", str(folder), *model, "--labels-file", str(text), "--json"]) == 0
    assert list(json.loads(capfd.readouterr().out)["sounds"][0]["scores"]) == lines
    index = ["--index", str(tmp_path / "index"), "--bank", str(text), "--neighbours", "4"]
    assert main(["index", str(folder), *model, *index]) == 2
    assert "The bank has 3 different sentences" in capfd.readouterr().err


def test_sentences_of_standard_input(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "\ufeffa dog\r\nrain\u2028falls\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert embed(bundle, "--text", "-", "--output", "~/text.npy") == 0
    beside = json.loads((tmp_path / "text.npy.json").read_text())
    assert beside["sentences"] == ["a dog", "rain\u2028falls"]
