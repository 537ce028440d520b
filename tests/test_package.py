"""Claims about the package as a whole: what imports what, and that its examples run."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import CORE

import atr_moco_plugin
from atr_moco_plugin.plugins import GROUPS, available

ROOT = Path(__file__).parents[1]
# Found by their files: without fairseq2 the recipes refuse to be imported.
FILES = sorted((ROOT / "atr_moco_plugin").rglob("*.py"))
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
    if path.relative_to(ROOT).parts[1] not in ("hosts", "recipes")
]


def test_the_core_imports_torch_and_numpy_alone() -> None:
    names = [f"atr_moco_plugin.{name}" for name in sorted(CORE | {"evaluation"})]
    code = (
        f"import importlib, sys; [importlib.import_module(n) for n in {names}];"
        "print([m for m in ('transformers', 'tokenizers', 'soundfile', 'soxr', 'dacite',"
        # The compiler takes as long to import as all the rest.
        " 'fairseq2', 'laion_clap', 'torchaudio', 'torch._dynamo') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_nothing_outside_of_the_host_imports_fairseq2() -> None:
    for path in (ROOT / "atr_moco_plugin").rglob("*.py"):
        inside = path.relative_to(ROOT / "atr_moco_plugin").parts[0] in ("hosts", "recipes")
        if not inside:
            assert not re.search(r"^\s*(from|import) fairseq2", path.read_text(), re.M), path


# What extras bring; `make test` has all of them.
OPTIONAL = {"faiss", "fastapi", "jinja2", "matplotlib", "onnx", "onnxruntime", "onnxscript", "PIL"}
OPTIONAL |= {"pgvector", "psycopg", "pyarrow", "ruamel", "sentence_transformers", "starlette"}
OPTIONAL |= {"uvicorn", "yaml"}


def test_examples_in_docstrings_run() -> None:
    attempted = 0
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as ex:
            assert (ex.name or "").partition(".")[0] in OPTIONAL, name
            continue
        result = doctest.testmod(module)
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 10


def test_versions_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{atr_moco_plugin.__version__}"' in text


def test_the_wheel_names_the_package_in_a_key_that_hatchling_reads() -> None:
    """Hatchling ignores keys that it does not know, so a misspelled one goes unnoticed."""
    text = (ROOT / "pyproject.toml").read_text()
    wheel = text.split("[tool.hatch.build.targets.wheel]\n")[1].split("\n\n")[0]
    assert wheel == 'packages = ["atr_moco_plugin"]'


def test_the_changelog_knows_what_the_package_offers() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for group in GROUPS:
        own = [n for n, p in available(group).items() if p.value.startswith("atr_moco_plugin")]
        assert own
        if group == "criteria":
            assert all(f"`{name}`" in changelog for name in own)


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"]
)
def test_what_a_stranger_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
