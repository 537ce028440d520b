"""Embeddings from files, of this package and of others, and every file that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atr_moco_plugin.analysis.reading import is_embeddings_file, kinds_in, read_embeddings
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.search.embeddings_file import Embeddings, Rows, write_embeddings


def some(rows: int = 3, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def of_embed(path: Path, kinds: tuple[str, ...] = ("audio", "text")) -> dict[str, Rows]:
    """A file as ``embed`` writes it."""
    names = {"audio": ["/s/a.wav", "/s/b.wav", "/s/c.wav"], "text": ["one", "two"]}
    rows = {
        kind: Rows(some(len(names[kind]), seed=len(kind)), names[kind], np.arange(len(names[kind])))
        for kind in kinds
    }
    write_embeddings(path, Embeddings(rows, {"model": "m"}))
    return rows


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_a_file_of_embed_with_both_kinds(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    path = tmp_path / f"both{suffix}"
    rows = of_embed(path)
    assert kinds_in(str(path)) == ("audio", "text")
    for kind in ("audio", "text"):
        for found in (read_embeddings(str(path), kind), read_embeddings(f"{path}::{kind}")):
            assert found.name == kind and found.names == rows[kind].names
            np.testing.assert_array_equal(found.rows.numpy(), rows[kind].embeddings)
            assert found.partners is None
    with pytest.raises(InputError, match="has several .*'audio', 'text'; say which, as in both"):
        read_embeddings(str(path))
    with pytest.raises(InputError, match="has no .* 'image' of embeddings; it has 'audio', 'text'"):
        read_embeddings(f"{path}::image")


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize("kind", ["audio", "text"])
def test_a_file_of_embed_with_one_kind(tmp_path: Path, suffix: str, kind: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    path = tmp_path / f"one{suffix}"
    rows = of_embed(path, (kind,))
    found = read_embeddings(str(path))
    assert found.name == kind and found.names == rows[kind].names
    np.testing.assert_array_equal(found.rows.numpy(), rows[kind].embeddings)


def test_a_file_of_an_evaluation_knows_the_pairs(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.safetensors"
    tensors = {
        "audio": torch.from_numpy(some(2)),
        "text": torch.from_numpy(some(4)),
        "caption_to_audio": torch.tensor([0, 0, 1, 1]),
    }
    save_file(tensors, path, {"clips": json.dumps(["a", "b"])})
    audio, text = read_embeddings(str(path), "audio"), read_embeddings(str(path), "text")
    assert audio.names == ["a", "b"] and audio.partners is None
    assert text.names is None and text.partners is not None
    assert text.partners.tolist() == [0, 0, 1, 1]


def test_foreign_files(tmp_path: Path) -> None:
    array = some()
    np.save(tmp_path / "minilm.npy", array)
    found = read_embeddings(str(tmp_path / "minilm.npy"))
    assert (found.name, found.names) == ("minilm", None)
    torch.testing.assert_close(found.rows, torch.from_numpy(array), rtol=0, atol=0)
    # One matrix among other tensors needs no name.
    tensors = {"image": torch.from_numpy(array).bfloat16(), "labels": torch.zeros(3).long()}
    save_file({**tensors, "pairs": torch.zeros(3, 2).long()}, tmp_path / "x.safetensors")
    found = read_embeddings(str(tmp_path / "x.safetensors"), "audio")
    assert found.name == "image" and found.rows.dtype == torch.bfloat16
    assert kinds_in(str(tmp_path / "x.safetensors")) == ()


@pytest.mark.parametrize("dtype", [">f4", "f2", "f8", "g", "i1", "u2", "<i4"])
def test_numpys_types(tmp_path: Path, dtype: str) -> None:
    array = (10 * some()).astype(dtype)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    found = read_embeddings(str(tmp_path / "x.npy")).rows
    np.testing.assert_array_equal(found.double().numpy(), array.astype(np.float64))


def test_foreign_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    import pyarrow.parquet

    array = some()
    columns = {"id": [7, 8, 9], "clip": [list(row) for row in array], "n": [1, 2, 3]}
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    found = read_embeddings(str(path))
    assert (found.name, found.names) == ("clip", ["7", "8", "9"])
    np.testing.assert_array_equal(found.rows.numpy(), array)
    two = {**columns, "text": columns["clip"]}
    pyarrow.parquet.write_table(pyarrow.table(two), path)
    assert read_embeddings(str(path), "text").name == "text"
    with pytest.raises(InputError, match="several columns of embeddings, 'clip', 'text'; say"):
        read_embeddings(str(path))
    for cell, message in (
        ([1.0], "have 2 lengths, such as 1, 4; all must"),
        (None, "column 'clip' has empty cells"),
        ([1.0, None, 1.0, 1.0], "column 'clip' has empty cells"),
    ):
        broken = {**columns, "clip": [*columns["clip"][:2], cell]}
        pyarrow.parquet.write_table(pyarrow.table(broken), path)
        with pytest.raises(InputError, match=message):
            read_embeddings(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2]}), path)
    with pytest.raises(InputError, match="has no column of embeddings.* a list of numbers"):
        read_embeddings(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"n": [["a"], ["b"]]}), path)
    with pytest.raises(InputError, match="has no column of embeddings"):
        read_embeddings(str(path))


def test_files_that_are_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str, kind: str = "") -> None:
        with pytest.raises(InputError, match=message):
            read_embeddings(str(tmp_path / name) + kind)

    refused("x.csv", r"embeddings are read from \.npy, \.safetensors, \.parquet")
    with pytest.raises(MissingFileError, match="no such file of embeddings"):
        read_embeddings(str(tmp_path / "none.npy"))
    with pytest.raises(MissingFileError, match="no such file of embeddings"):
        kinds_in(str(tmp_path / "none.safetensors"))
    for name in ("x.npy", "x.safetensors"):
        (tmp_path / name).write_bytes(b"something else")
        refused(name, r"cannot be read as \.")
    if (tmp_path / "x.npy").exists():
        refused("x.npy", "has one matrix and no name 'a'", "::a")
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 and no archive")
    refused("zip.npy", r"cannot be read as \.npy")
    np.save(tmp_path / "bracket.npy", some())
    whole = (tmp_path / "bracket.npy").read_bytes()
    (tmp_path / "bracket.npy").write_bytes(whole.replace(b"}", b" ", 1))
    refused("bracket.npy", r"cannot be read as \.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused("o.npy", r"cannot be read as \.npy")
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    refused("s.npy", "expected real numbers")
    np.save(tmp_path / "c.npy", np.ones((2, 2), dtype=complex))
    refused("c.npy", "has the type complex128, expected real numbers")
    with (tmp_path / "z.npy").open("wb") as file:
        np.savez(file, a=some(), b=some())
    refused("z.npy", r"is a \.npz with several")
    save_file({"x": torch.zeros(3)}, tmp_path / "flat.safetensors")
    refused("flat.safetensors", "has no tensor of embeddings")


def test_names_of_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    of_embed(path, ("audio",))
    np.save(path, some(5))  # written anew, and its description is the old one
    with pytest.raises(InputError, match=r"has 3 names for embeddings of shape \[5, 4\]"):
        read_embeddings(str(path))
    np.save(path, some(3, seed=5)[::-1])  # as many rows, which may be in another order
    with pytest.raises(InputError, match=r"one\.npy\.json: its SHA-256 is not that of one\.npy"):
        read_embeddings(str(path))
    path.with_name("one.npy.json").write_text("{")
    with pytest.raises(InputError, match="its description is no JSON"):
        read_embeddings(str(path))


def test_names_that_do_not_say_of_which_file_they_are_get_a_note(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    np.save(path, some(2))
    path.with_name("one.npy.json").write_text(json.dumps({"paths": ["a", "b"]}))
    with pytest.warns(UserWarning, match=r"one\.npy\.json has no SHA-256 of one\.npy"):
        assert read_embeddings(str(path)).names == ["a", "b"]


def test_empty_cells_of_a_table_are_no_names(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    import pyarrow

    rows = some(4).tolist()
    columns = {"id": [1.0, float("nan"), None, 2.5], "name": ["a", None, "", "b"], "e": rows}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    found = read_embeddings(str(tmp_path / "x.parquet"))
    assert found.names == ["a", "", "", "b"]
    assert found.ids == {"name": ["a", None, None, "b"], "id": ["1", None, None, "2.5"]}
    # A sentence of `embed` is the name of no sound, and its id of no clip.
    of_embed(tmp_path / "both.parquet")
    path = str(tmp_path / "both.parquet")
    assert list(read_embeddings(path, "audio").ids) == ["name", "id"]
    assert read_embeddings(path, "text").ids == {"sentence": ["one", "two"]}


def test_what_is_a_file_of_embeddings() -> None:
    assert all(map(is_embeddings_file, ["a.npy", "a.NPY", "b/a.safetensors::x", "a.parquet"]))
    assert not any(map(is_embeddings_file, ["sounds", "a.wav", "a.csv", "sentences.txt", "-"]))


def test_large_unsigned_integers_stay_positive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[2**63 + 2**40, 1], [3, 4]], dtype=np.uint64))
    assert (read_embeddings(str(tmp_path / "x.npy")).rows > 0).all()
