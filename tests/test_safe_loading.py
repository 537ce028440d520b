"""Nothing that is loaded runs code, takes memory it has no bytes for, or shows a secret."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import atr_moco_plugin
from atr_moco_plugin.data.audio.cache import read_entry
from atr_moco_plugin.encoders.beats import BeatsEncoder
from atr_moco_plugin.encoders.bert import BertEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import problem_with, read_torch
from atr_moco_plugin.text.tokenizer import load_tokenizer, train_wordpiece

PACKAGE = Path(atr_moco_plugin.__file__).parent


class Payload:
    """Creates a file where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_the_package_calls_nothing_that_runs_what_it_loads() -> None:
    forbidden = re.compile(
        r"(pickle|cPickle|dill|joblib|marshal|shelve)\.(loads?|open)|eval|exec|compile"
        r"|os\.system|yaml\.(unsafe_load|full_load|load_all)|extractall|.*\.extract(all)?"
    )
    for path in PACKAGE.rglob("*.py"):
        for name, call in calls(ast.parse(path.read_text())):
            where = f"{path.relative_to(PACKAGE)}:{call.lineno}"
            options = {x.arg: ast.unparse(x.value) for x in call.keywords}
            assert not forbidden.fullmatch(name), f"{where} calls {name}"
            if name == "torch.load":
                assert options.get("weights_only") == "True", where
            if name in ("np.load", "numpy.load"):
                assert options.get("allow_pickle") == "False", where
            if name == "yaml.load":
                assert options.get("Loader") in ("yaml.BaseLoader", "yaml.SafeLoader"), where
            if name == "YAML":
                assert options.get("typ", "'safe'") == "'safe'" or "dump" in path.read_text(), where
            if name.startswith("Auto") and name.endswith(".from_pretrained"):
                assert options.get("trust_remote_code") == "False", where


def as_torch(payload: Payload, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    content = {"cfg": {"input_patch_size": 16}, "model": {"x": payload}}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


FORMS: dict[str, Callable[[Payload], bytes]] = {
    "torch": as_torch,
    "legacy": lambda payload: as_torch(payload, legacy=True),
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_payload_never_runs(tmp_path: Path, form: str) -> None:
    planted = tmp_path / "it_ran"
    data = FORMS[form](Payload(planted))

    beats = tmp_path / "beats.pt"
    beats.write_bytes(data)
    with pytest.raises(ValueError, match="beats.pt cannot be read as a BEATs checkpoint"):
        BeatsEncoder.from_checkpoint(beats)

    bert = tmp_path / "bert"
    bert.mkdir()
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 12, "max_position_embeddings": 10}  # fmt: skip
    (bert / "config.json").write_text(json.dumps(sizes))
    (bert / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as BERT weights"):
        BertEncoder.from_pretrained(str(bert))

    entry = tmp_path / "a.npy"
    entry.write_bytes(data)
    assert read_entry(entry) is None
    np.save(entry, np.array([Payload(planted)], dtype=object), allow_pickle=True)
    assert read_entry(entry) is None

    if form == "pickle":
        assert problem_with(beats) is not None
    else:
        with pytest.raises(InputError, match="io.open"):
            problem_with(beats)
    assert not planted.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_payload_in_a_run_never_runs(tmp_path: Path, form: str) -> None:
    pytest.importorskip("fairseq2")
    from fairseq2.recipe.error import RecipeError

    from atr_moco_plugin.hosts.fairseq2.runs.folder import read_config, read_state

    planted = tmp_path / "it_ran"
    file = tmp_path / "step_1" / "model" / "pp_00" / "tp_00" / "sdp_00.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(FORMS[form](Payload(planted)))
    with pytest.raises(RecipeError, match="sdp_00.pt cannot be read as a checkpoint"):
        read_state(tmp_path / "step_1")
    (tmp_path / "config.yaml").write_text(
        f"model: !!python/object/apply:builtins.open [{planted}, w]\n"
    )
    with pytest.raises(RecipeError, match="config.yaml is not a YAML file"):
        read_config(tmp_path)
    assert not planted.exists()


def test_a_tokenizer_folder_runs_no_python(tmp_path: Path) -> None:
    planted = tmp_path / "it_ran"
    folder = tmp_path / "tokenizer"
    train_wordpiece(["a dog barks", "rain on a roof"], 120).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text())
    values |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    file.write_text(json.dumps(values))
    (folder / "evil.py").write_text(f"open({str(planted)!r}, 'w')\n")
    with pytest.raises(FileNotFoundError, match="could not be loaded"):
        load_tokenizer(str(folder))
    assert not planted.exists()


def test_an_archive_does_not_inflate(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({"x": torch.zeros(4)}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data + bytes(2**24 if name.endswith("data/0") else 0))
    assert file.stat().st_size < 2**18
    with pytest.raises(ValueError, match="more bytes than it has"):
        read_torch(file)
    with pytest.raises(InputError, match="more bytes than it has"):
        problem_with(file)


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written(tmp_path: Path, tiny_options: list[str]) -> None:
    pytest.importorskip("fairseq2")
    secrets = {
        "MY_SECRET_TOKEN": "hunter2-in-the-environment",
        "HF_TOKEN": "hf_aVerySecretTokenIndeed",
        "AWS_SECRET_ACCESS_KEY": "aws-very-secret-indeed",
        "WANDB_API_KEY": "0123456789abcdefwandb",
    }
    out = tmp_path / "out"
    command = ["-m", "atr_moco_plugin.recipes.toy", str(out), "--no-rich", "--config"]
    done = subprocess.run(
        [sys.executable, *command, *tiny_options, "report=true"],
        capture_output=True,
        timeout=200,
        env={**os.environ, **secrets, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"config.yaml", "index.html", "rank_0.log"} <= {path.name for path in written}
    texts = {path.name: path.read_bytes() for path in written}
    for name, data in {"stdout": done.stdout, "stderr": done.stderr, **texts}.items():
        for secret in secrets.values():
            assert secret.encode() not in data, name
        # Nor is there any other place where the whole environment is listed.
        assert b"MY_SECRET_TOKEN" not in data, name
