"""The command `analyse` on files of embeddings, and on sounds and sentences through a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from docs.pages import run_python
from safetensors.torch import save_file
from tiny_bundle import SENTENCES

from atr_moco_plugin.commands.main import main
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def matrices(rows: int = 40, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(rows, dim)).astype(np.float32)
    return audio, (audio + 0.3 * rng.normal(size=(rows, dim))).astype(np.float32)


def found(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["analyse", *map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["analyse", *map(str, arguments)]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("ERROR: ") and captured.err.count("\n") == 1
    return captured.err


def test_two_files_row_by_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, rows in zip(("images", "captions"), matrices(), strict=True):
        np.save(f"{name}.npy", rows)
    result = found(capfd, "images.npy", "captions.npy")
    assert list(result["sides"]) == ["images", "captions"]
    assert result["pairs"]["pairs"] == 40 and result["pairs"]["by"] == "row"
    assert (
        "No pairs are given: row i of images.npy belongs to row i of captions.npy."
        in (result["notes"])
    )
    assert result["output"] == "analysis.html"
    page = (tmp_path / "analysis.html").read_text()
    assert "images and captions" in page and "No pairs are given" in page


def test_the_terminal_shows_the_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, rows in zip("ab", matrices(), strict=True):
        np.save(f"{name}.npy", rows)
    options = ["--names", "image", "caption", "--output", "pages/x.html"]
    assert main(["analyse", "a.npy", "b.npy", *options]) == 0
    printed = capfd.readouterr().out
    assert "image, raw" in printed and "linear CKA" in printed
    assert printed.endswith("Page: pages/x.html\n")
    assert (tmp_path / "pages" / "x.html").is_file()


def test_one_kind_alone(capfd: pytest.CaptureFixture[str]) -> None:
    np.save("minilm.npy", matrices()[0])
    result = found(capfd, "minilm.npy")
    assert list(result["sides"]) == ["minilm"] and "pairs" not in result
    assert list(found(capfd, "minilm.npy", "--names", "sentences")["sides"]) == ["sentences"]


def test_a_file_with_both_kinds_and_who_belongs_to_whom(
    capfd: pytest.CaptureFixture[str],
) -> None:
    audio, text = map(torch.from_numpy, matrices())
    owner = torch.arange(40).flip(0)
    save_file({"audio": audio, "text": text[owner].contiguous()}, "no.safetensors")
    tensors = {"audio": audio, "text": text[owner].contiguous(), "caption_to_audio": owner}
    save_file(tensors, "yes.safetensors")
    result = found(capfd, "yes.safetensors")
    assert list(result["sides"]) == ["audio", "text"] and result["pairs"]["by"] == "list"
    right = result["retrieval"]["cosine"]["a2t_r1"]
    wrong = found(capfd, "no.safetensors")["retrieval"]["cosine"]["a2t_r1"]
    assert right > 90 > 30 > wrong
    alone = found(capfd, "yes.safetensors::text")
    assert list(alone["sides"]) == ["text"]


def test_what_is_odd_about_a_table_is_a_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    import pyarrow

    names = [f"{row}.wav" for row in range(3)]
    texts = ["Gras", "Regen", "Geräusch"]
    for name, column, cells, rows in zip(
        "at", ("name", "text"), (names, texts), matrices(3), strict=True
    ):
        table = pyarrow.table({column: cells, "embedding": rows.tolist()})
        parquet.write_table(table, f"{name}.parquet")
    lines = ["file_name;caption", *map(";".join, zip(names, texts, strict=True))]
    Path("excel.csv").write_text("\n".join(lines), encoding="cp1252")
    assert main(["analyse", "a.parquet", "t.parquet", "--pairs", "excel.csv"]) == 0
    out, err = capfd.readouterr()
    assert not err, "a line of this package's code tells a user nothing"
    assert out.count("Note: excel.csv: is not UTF-8") == 1
    assert "is not UTF-8" in (tmp_path / "analysis.html").read_text()


def test_pairs_from_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    np.save("a.npy", audio)
    np.save("t.npy", np.repeat(text, 2, axis=0))
    np.save("pairs.npy", np.repeat(np.arange(40), 2))
    result = found(capfd, "a.npy", "t.npy", "--pairs", "pairs.npy")
    assert result["pairs"]["pairs"] == 80 and result["retrieval"]["cosine"]["t2a_r1"] > 90
    error = refused(capfd, "a.npy", "t.npy")
    assert "40 rows" in error and "80" in error and "--pairs" in error


def test_a_folder_and_a_captions_file_through_a_model(
    bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = ["a.wav", "b.flac", "sub/c.wav"]
    lines = [f'{name},"{text}"' for name, text in zip(rows, SENTENCES, strict=True)]
    Path("captions.csv").write_text("\n".join(["file_name,caption", *lines, "broken.wav,rain"]))
    options = ["--model", bundle, "--device", "cpu"]
    result = found(capfd, folder, "captions.csv", *options)
    assert {name: side["rows"] for name, side in result["sides"].items()} == {"audio": 3, "text": 4}
    assert result["pairs"]["pairs"] == 3 and result["pairs"]["by"] == "list"
    assert any("1 of 4 pairs of captions.csv" in note for note in result["notes"])
    assert any("1 cannot be read and are left out" in note for note in result["notes"])
    names = ("a.wav", "b.flac", "gone.wav")
    Path("sounds.csv").write_text("file_name\n" + "".join(f"{folder}/{x}\n" for x in names))
    alone = found(capfd, "sounds.csv", *options)
    assert any("gone.wav (no such file)" in note for note in alone["notes"])
    # The same embeddings from files give the same figures.
    retriever = AudioTextRetriever.from_pretrained(bundle, device="cpu")
    np.save("a.npy", retriever.embed_audio([folder / name for name in rows]).numpy())
    np.save("t.npy", retriever.embed_text(SENTENCES).numpy())
    again = found(capfd, "a.npy", "t.npy")
    assert again["alignment"]["value"] == pytest.approx(result["alignment"]["value"], abs=1e-4)


def test_sentences_alone_through_a_model(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("sentences.txt").write_text("\n".join(SENTENCES))
    result = found(capfd, "sentences.txt", "--model", bundle, "--device", "cpu")
    assert list(result["sides"]) == ["text"] and result["sides"]["text"]["rows"] == 3


def test_wrong_input_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    np.save("a.npy", audio)
    np.save("t.npy", text)
    broken = audio.copy()
    broken[[3, 5], 0] = np.nan
    np.save("nan.npy", broken)
    np.save("one.npy", audio[:1])
    assert "2 of 40 rows" in refused(capfd, "nan.npy", "t.npy")
    assert "has 1 row" in refused(capfd, "one.npy")
    assert "give one, or --model BUNDLE" in refused(capfd, tmp_path)
    assert "no such file of embeddings" in refused(capfd, "none.npy")
    assert "--pairs needs embeddings of two kinds" in refused(capfd, "a.npy", "--pairs", "x.csv")
    given = {"--model": "x", "--device": "x", "--dtype": "float32", "--batch-size": "16"}
    for option, value in given.items():
        error = refused(capfd, "a.npy", "t.npy", option, value)
        assert (
            f"{option} {value} does nothing here: a.npy and t.npy are embeddings already" in error
        )
    assert "--names has 1, but there are 2 kinds" in refused(
        capfd, "a.npy", "t.npy", "--names", "x"
    )
    assert "calls both 'x'" in refused(capfd, "a.npy", "t.npy", "--names", "x", "x")
    assert "is a folder" in refused(capfd, "a.npy", "--output", tmp_path)
    Path("file").touch()
    assert "cannot be written" in refused(capfd, "a.npy", "--output", "file/page.html")
    assert not Path("analysis.html").exists()


def test_unnormalised_rows_and_constant_columns_are_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    audio, _ = matrices()
    audio[:, 2] = 1.0
    np.save("a.npy", 5 * audio)
    notes = " ".join(found(capfd, "a.npy")["notes"])
    assert "scaled to length 1" in notes and "same value in every row" in notes


def test_the_page_of_the_guide(capfd: pytest.CaptureFixture[str]) -> None:
    """The code of docs/analyse.md."""
    run_python("docs/analyse.md")
    assert float(capfd.readouterr().out) > 95


def test_files_with_ids_are_joined_by_them(capfd: pytest.CaptureFixture[str]) -> None:
    """In another order, row i would be the partner of another item."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    import pyarrow

    audio, text = matrices()
    order = np.random.default_rng(1).permutation(len(text))
    for name, rows, ids in (("a", audio, np.arange(40)), ("t", text[order], order)):
        columns = {
            "id": [f"clip {i}" for i in ids],
            "text": [f"sound {i}" for i in ids],
            "tags": [["x", "y"]] * 40,
            "embedding": rows.tolist(),
        }
        parquet.write_table(pyarrow.table(columns), f"{name}.parquet")
    result = found(capfd, "a.parquet", "t.parquet")
    assert result["retrieval"]["cosine"]["a2t_r1"] > 90
    assert "rows of one id belong together" in result["notes"][0]
    Path("pairs.csv").write_text(
        "".join(["audio,text\n", *(f"clip {i},sound {i}\n" for i in range(40))])
    )
    listed = found(capfd, "a.parquet", "t.parquet", "--pairs", "pairs.csv")
    assert listed["retrieval"]["cosine"] == result["retrieval"]["cosine"]


def with_ids(name: str, rows: np.ndarray, ids: list, column: str = "id") -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    import pyarrow

    parquet.write_table(pyarrow.table({column: ids, "embedding": rows.tolist()}), name)


def test_rows_of_one_id_belong_together_in_any_order(capfd: pytest.CaptureFixture[str]) -> None:
    """Where both files had them in one order, row i was the partner of row i alone."""
    audio, text = matrices()
    ids = [f"c{i // 4}" for i in range(40)]
    with_ids("a.parquet", audio, ids)
    with_ids("t.parquet", text, ids)
    with_ids("back.parquet", text[::-1].copy(), ids[::-1])
    first, second = (found(capfd, "a.parquet", x) for x in ("t.parquet", "back.parquet"))
    assert first["pairs"] == second["pairs"] and first["pairs"]["pairs"] == 160
    assert first["retrieval"]["cosine"] == pytest.approx(second["retrieval"]["cosine"])


def test_rows_without_an_id_have_no_partner(capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    order = np.random.default_rng(1).permutation(40)
    with_ids("a.parquet", audio, [f"c{i}" if i < 30 else None for i in range(40)])
    with_ids("t.parquet", text[order], [f"c{i}" if i < 30 else "" for i in order])
    result = found(capfd, "a.parquet", "t.parquet")
    assert result["pairs"]["pairs"] == 30 and result["retrieval"]["cosine"]["a2t_r1"] > 90
    for name in ("a.parquet", "t.parquet"):
        assert f"10 of 40 rows of {name} have no id and no partner." in result["notes"]


def test_ids_that_pandas_made_floats_of(capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    order = np.random.default_rng(1).permutation(40)
    with_ids("a.parquet", audio, list(range(40)))
    with_ids("t.parquet", text[order], order.astype(float).tolist())
    result = found(capfd, "a.parquet", "t.parquet")
    assert result["pairs"]["pairs"] == 40 and result["retrieval"]["cosine"]["a2t_r1"] > 90


def test_ids_of_which_none_is_shared_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    with_ids("a.parquet", audio, [f"{i}.wav" for i in range(40)])
    with_ids("t.parquet", text, [f"{i}.flac" for i in range(40)])
    error = refused(capfd, "a.parquet", "t.parquet")
    assert "both have ids in 'id' and share none, such as '0.wav' and '0.flac'" in error
    # Other columns say nothing about each other.
    with_ids("k.parquet", text, [f"key {i}" for i in range(40)], "key")
    notes = found(capfd, "a.parquet", "k.parquet")["notes"]
    assert "No pairs are given: row i of a.parquet belongs to row i of k.parquet." in notes
    # Nor do the sounds and the sentences of `embed`.
    for kind, rows in (("audio", audio), ("text", text)):
        of_one = Rows(rows, [f"{kind} {i}" for i in range(40)], np.arange(40) + len(kind) * 100)
        write_embeddings(Path(f"{kind}.parquet"), Embeddings({kind: of_one}, {"model": "m"}))
    assert found(capfd, "audio.parquet", "text.parquet")["pairs"]["by"] == "row"


def test_a_seed_that_no_generator_takes(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["analyse", "a.npy", "--seed", str(2**70)])
    assert "is not from 0 to 2^63 - 1" in capfd.readouterr().err


def columns(file: str, **of: list) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    import pyarrow

    parquet.write_table(pyarrow.table(of), file)


def test_two_columns_of_one_table_have_a_pair_in_each_row(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Ids that repeat made 800 pairs of 40 rows."""
    audio, text = (x.tolist() for x in matrices())
    columns("one.parquet", name=[f"c{i % 2}" for i in range(40)], audio=audio, text=text)
    for second in ("one.parquet::text", "./one.parquet::text"):
        result = found(capfd, "one.parquet::audio", second)
        assert result["pairs"]["pairs"] == 40 and result["pairs"]["by"] == "row"


def test_ids_of_which_each_is_there_once_come_before_ids_that_repeat(
    capfd: pytest.CaptureFixture[str],
) -> None:
    audio, text = (x.tolist() for x in matrices())
    classes = {"name": [f"class {i % 2}" for i in range(40)]}
    columns("a.parquet", **classes, id=[*range(40)], embedding=audio)
    columns("t.parquet", **classes, id=[*range(40)], embedding=text)
    assert found(capfd, "a.parquet", "t.parquet")["pairs"]["by"] == "row"
    turned = {"name": classes["name"][::-1], "id": [*range(40)][::-1]}
    columns("back.parquet", **turned, embedding=text[::-1])
    result = found(capfd, "a.parquet", "back.parquet")
    assert result["pairs"]["pairs"] == 40 and "the column 'id'" in result["notes"][0]
    # Once on one side is better than on none: sentences of clips.
    columns("clips.parquet", **classes, path=[f"{i}.wav" for i in range(40)], embedding=audio)
    owners = [f"{i // 2}.wav" for i in range(40)]
    columns("said.parquet", **classes, path=owners, embedding=text)
    result = found(capfd, "clips.parquet", "said.parquet")
    assert result["pairs"]["pairs"] == 40 and "the column 'path'" in result["notes"][0]


def test_one_value_in_all_rows_is_no_id(capfd: pytest.CaptureFixture[str]) -> None:
    audio, text = matrices()
    with_ids("a.parquet", audio, ["clotho"] * 40, "name")
    for value in ("clotho", "texts"):
        with_ids("t.parquet", text, [value] * 40, "name")
        result = found(capfd, "a.parquet", "t.parquet")
        assert result["pairs"]["pairs"] == 40 and result["pairs"]["by"] == "row"
    # One clip and all of its sentences is something else.
    with_ids("a.parquet", audio, ["x", *map(str, range(39))], "name")
    with_ids("t.parquet", text, ["x"] * 40, "name")
    assert found(capfd, "a.parquet", "t.parquet")["pairs"]["pairs"] == 40


def test_ids_that_make_too_many_pairs_are_refused(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = np.random.default_rng(0).normal(size=(1_500, 2)).astype(np.float32)
    for name in ("a.parquet", "t.parquet"):
        with_ids(name, rows, [f"c{i % 2}" for i in range(1_500)])
    error = refused(capfd, "a.parquet", "t.parquet")
    assert "'id' repeat on both sides and make 1,125,000 pairs, more than 1,000,000" in error
