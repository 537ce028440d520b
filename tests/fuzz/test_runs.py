"""What is left of a run, of any content: it is read, or one sentence names the file."""

from __future__ import annotations

import glob
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fairseq2")

from fairseq2.recipe.error import RecipeError

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.runs.folder import (
    find_checkpoint,
    load_model,
    read_config,
    read_model_config,
    read_state,
)
from atr_moco_plugin.hosts.fairseq2.runs.output import check_name
from atr_moco_plugin.hosts.fairseq2.runs.resume import problem_with_checkpoint
from atr_moco_plugin.io.checkpoints import problem_with, step_folders
from atr_moco_plugin.io.step_records import drop_after

FUZZ = settings.get_profile("fuzz")

scalar = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["2001-99-99", "0x", "=", "<<", "!!python/object/apply:os.system [x]"]),
)  # fmt: skip
tree = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["model", "dataset", "criterion", "tokenizer"]), scalar),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
yaml_line = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["model: &a [*a]", "dataset: !!python/name:os.system", "? [a]\n: b", "model: {", "- x",
         "model: 2001-99-99", "model: 0x", "criterion: 1_", "a: 1:99:99", "%YAML 9.9", "--- !!set",
         "<<: 3", "x: !!binary x", "x: !!timestamp x", "x: !!int x", "x: !!float x", "\tx: 1"]
    ),
)  # fmt: skip


@FUZZ
@given(
    st.one_of(
        st.lists(yaml_line, max_size=5).map(
            lambda lines: "\n".join(lines).encode("utf-8", "replace")
        ),
        tree.map(lambda value: repr(value).encode("utf-8", "replace")),
        st.binary(max_size=60),
    )
)
@example(b"[" * 3_000)
@example(b"model: 1\nmodel: 2\n")
def test_a_config(tmp_path: Path, attempt: Any, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    attempt(lambda: read_config(tmp_path), (RecipeError,), str(tmp_path / "config.yaml"))


@FUZZ
@given(
    st.one_of(
        tree.map(lambda value: json.dumps(value, default=str, skipkeys=True).encode()),
        st.binary(max_size=60),
    )
)
@example(b"[" * 100_000)
@example(b"[1]")
@example(b"3")
@example(b"\xff")
def test_a_model_config(tmp_path: Path, attempt: Any, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    attempt(lambda: read_model_config(tmp_path), (RecipeError,), str(tmp_path / "model.json"))


@FUZZ
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["step_1", "step_2", "step_²", "step_١", "step_-1", "step_", "step_ "]),
            # A path is given back as it is, with a line break in it too.
            st.text(max_size=5).filter(lambda x: "/" not in x and x.isprintable()),
        ),
        max_size=4,
    ),
    st.one_of(st.binary(max_size=8), st.sampled_from([b"nan", b"1e999", b"1"])),
    st.sampled_from(["best", "last", "step_1", "x", None]),
    st.sampled_from(["run", "[1]", "a*", "?"]),
)
def test_folders_of_checkpoints(
    tmp_path_factory: pytest.TempPathFactory,
    attempt: Any,
    names: list[str],
    score: bytes,
    which: str | None,
    called: str,
) -> None:
    run = tmp_path_factory.mktemp("runs") / called
    (run / "checkpoints" / "scores").mkdir(parents=True)
    for name in names:
        if name.strip(".") and name != "scores":
            (run / "checkpoints" / name / "model").mkdir(parents=True, exist_ok=True)
            (run / "checkpoints" / "scores" / f"{name}.txt").write_bytes(score)
    attempt(lambda: find_checkpoint(run, which), (RecipeError,), str(run))
    for step in {x.name for x in (run / "checkpoints").iterdir() if x.name != "scores"}:
        path = run / "checkpoints" / step
        attempt(partial(find_checkpoint, path, which), (RecipeError,), str(path))
    for _, folder in step_folders(run / "checkpoints", "step_"):
        assert problem_with_checkpoint(folder) is not None


@FUZZ
@given(st.lists(st.text("ab[]*?{}!~.\\ \n-é", min_size=1, max_size=6), min_size=1, max_size=3))
def test_names_of_output_folders(tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path.joinpath(*names)
    try:
        check_name(folder)
        refused = False
    except InputError as error:
        refused = True
        assert str(folder.resolve()) in str(error)
    # What fairseq2 would search with is then found as it is.
    pattern = str(folder.resolve() / "step_*")
    assert refused or glob.has_magic(pattern.removesuffix("step_*")) is False
    assert refused == any(x in str(folder.resolve()) for x in "[]*?")


line = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b'{"Step": 3}', b'{"Step": Infinity}', b'{"Step": "x"}', b"[1]", b"3"]),
    tree.map(lambda value: json.dumps({"Step": value}, default=str, skipkeys=True).encode()),
)


@FUZZ
@given(st.lists(line, max_size=5), st.integers(0, 5))
@example([b'{"Step": 1e999}'], 1)
@example([b"[" * 100_000], 1)
def test_records_of_metrics(tmp_path: Path, lines: list[bytes], step: int) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"\n".join(lines))
    drop_after(file, step)
    assert set(file.read_bytes().splitlines()) <= set(b"\n".join(lines).splitlines())


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))


def saved(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def loads(attempt: Any, folder: Path, module: torch.nn.Module, *shards: bytes) -> None:
    for number, content in enumerate(shards):
        path = folder / "model" / "pp_00" / "tp_00" / f"sdp_{number:02d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    attempt(lambda: load_model(module, read_state(folder), folder), (RecipeError,), str(folder))
    attempt(lambda: problem_with(path), (InputError,), str(path))


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[float, str, bytes]]:
    how = st.sampled_from(["cut", "flip", "overwrite", "insert"])
    return draw(
        st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), how, st.binary(min_size=1, max_size=8)),
            min_size=1,
            max_size=4,
        )
    )


def changed(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    content = bytearray(data)
    for place, how, some in edits:
        at = int(place * len(content))
        if how == "cut":
            return bytes(content[:at])
        if how == "flip" and content:
            content[at] ^= 1 << (some[0] % 8)
        elif how == "overwrite":
            content[at : at + len(some)] = some
        elif how == "insert":
            content[at:at] = some
    return bytes(content)


@FUZZ
@given(changes(), st.booleans())
def test_a_damaged_checkpoint(
    tmp_path: Path, attempt: Any, module: torch.nn.Module, edits: Any, zipped: bool
) -> None:
    state = {f"model.{name}": value for name, value in module.state_dict().items()}
    loads(attempt, tmp_path, module, changed(saved(state, zipped), edits))


tensor = st.sampled_from(
    [torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 3), torch.zeros(()), torch.zeros(2, 4),
     torch.zeros(2, dtype=torch.int64), torch.eye(2).to_sparse(), torch.zeros(2, device="meta"),
     torch.zeros(2, dtype=torch.complex64), torch.zeros(1).expand(10**6, 10**6),
     torch.zeros(1).expand(10**6, 3)]
)  # fmt: skip
names = ["0.weight", "0.bias", "1.weight", "1.bias"]
state = st.dictionaries(
    st.one_of(
        *[st.sampled_from([f"model.{name}" for name in names])] * 3,
        st.sampled_from([*names, "queue.x", "model.other", "model.a\nb"]),
        st.integers(0, 2),
    ),
    st.one_of(tensor, tensor, tensor, tree),
    max_size=6,
)


@st.composite
def shard(draw: st.DrawFn) -> object:
    if draw(st.integers(0, 4)) == 0:
        return draw(st.one_of(state, tree, tensor))
    right = [torch.zeros(2, 3), torch.zeros(2), torch.zeros(2), torch.zeros(2)]
    return {f"model.{name}": x for name, x in zip(names, right, strict=True)} | draw(state)


@FUZZ
@given(st.lists(shard(), min_size=1, max_size=2))
def test_a_checkpoint_of_something_else(
    tmp_path: Path, attempt: Any, module: torch.nn.Module, contents: list[object]
) -> None:
    for old in tmp_path.rglob("*.pt"):
        old.unlink()
    loads(attempt, tmp_path, module, *map(saved, contents))
