"""The house: which folder may import which, that no files import each other in a circle, and that
each folder says what belongs in it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import CORE, FOUNDATION

PACKAGE = Path(__file__).parents[1] / "atr_moco_plugin"

# What each folder or file of the package may import beside itself. A new arrow is a decision: it
# is written here first.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "ids": {"errors"},
    "sample_rate": {"errors"},
    "config": {"errors", "io"},
    "config_builder": {"errors", "config"},
    "plugins": {"errors"},
    "io": {"errors"},
    "tensors": {"errors"},
    "tokens": {"tensors", "errors"},
    "learned_distance": {"tensors"},
    "contracts": {"queue", "tokens"},
    "momentum": {"errors", "tensors", "contracts"},
    "queue": {"errors", "tensors"},
    "distributed": {"tensors"},
    "optim": {"errors", "tensors", "contracts"},
    "rank": {"errors", "queue", "io", "tensors", "contracts"},
    "criterion": CORE | {"ids", "config"},
    "encoders": FOUNDATION | {"contracts", "tensors", "tokens"},
    "heads": {"config", "contracts", "encoders", "errors", "tensors", "tokens"},
    "model": FOUNDATION | {"contracts", "learned_distance", "tensors", "tokens"},
    "safety": CORE,
    "data": FOUNDATION | {"tensors"},
    "text": FOUNDATION | {"data", "encoders"},
    "evaluation": CORE | FOUNDATION | {"data", "heads", "model"},
    "report": FOUNDATION | {"data", "evaluation", "rank"},
    "comparison": FOUNDATION | {"data", "evaluation", "report", "tensors"},
    # `data` for its tables: captions files say what belongs together.
    "analysis": FOUNDATION | {"data", "evaluation", "rank", "report", "tensors"},
    # `evaluation` for its tables.
    "inspection": FOUNDATION | {"data", "encoders", "evaluation", "report", "tensors", "text"},
    "embedding_cache": FOUNDATION | {"contracts", "data", "model", "tensors", "tokens"},
    "finetuning": CORE
    | FOUNDATION
    | {"data", "embedding_cache", "encoders", "evaluation", "heads", "model", "report"}
    | {"retriever", "teaching", "text"},
    "study": FOUNDATION | {"criterion", "evaluation", "rank", "report"},
    # `search` when an index is asked: an index is built on the face of a retriever.
    "retriever": CORE
    | FOUNDATION
    | {"data", "encoders", "evaluation", "heads", "model", "search", "text"},
    # `evaluation` for the corrections of cosines, which the index applies.
    "search": FOUNDATION | {"data", "distributed", "evaluation", "retriever", "tensors"},
    "serving": FOUNDATION | {"data", "report", "retriever", "search"},
    # `search` for the files that `embed` writes, `embedding_cache` for what processes share,
    # `evaluation` for the clips that a run was trained on.
    "teaching": CORE
    | FOUNDATION
    | {"data", "embedding_cache", "evaluation", "retriever", "search"},
    "exporting": FOUNDATION | {"data", "model", "retriever", "tensors", "text", "tokens"},
}
# Folders in `data`, from the ground up: each may import the ones before it.
DATA_FLOORS = ["audio", "tables", "clips", "retrieval_set", "summary", "dataset", "opening", "sets"]
DATA_FLOORS += ["loading"]


def _modules() -> dict[str, Path]:
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def _imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of this package that a file imports, those for type checkers alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules else node.module


MODULES = _modules()
IMPORTS = {name: set(_imports(path, MODULES)) for name, path in MODULES.items()}


def _place(module: str) -> str:
    """The folder or file of the package that a module is in."""
    return (module.split(".") + [""])[1]


@pytest.mark.parametrize("place", sorted(MAY_IMPORT))
def test_a_folder_imports_what_it_may_import(place: str) -> None:
    assert any(_place(module) == place for module in MODULES), f"{place} is gone: mend the table"
    arrows = {
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if _place(module) == place
        and _place(other) not in MAY_IMPORT[place] | {place}
        and other != "atr_moco_plugin"
    }
    assert not arrows


def test_every_folder_is_in_the_table() -> None:
    top = {_place(module) for module in MODULES} - {"", "__main__", "commands", "hosts", "recipes"}
    assert top == set(MAY_IMPORT)


def test_hosts_and_recipes_are_imported_by_nobody() -> None:
    for module, others in IMPORTS.items():
        for other in others:
            if _place(other) == "recipes":
                assert _place(module) == "recipes", f"{module} imports {other}"
            if _place(other) == "commands":
                assert _place(module) in ("commands", "__main__"), f"{module} imports {other}"
            if _place(other) == "hosts" and module == "atr_moco_plugin.commands.export":
                continue  # it asks the host that made a run
            if _place(other) == "hosts" and module == "atr_moco_plugin":
                continue  # `finetune` is a name of the package itself
            if _place(other) == "hosts" and _place(module) != "recipes":
                same = other.split(".")[:3] == module.split(".")[:3]
                assert same, f"{module} imports {other}"


def test_the_floors_of_data() -> None:
    for module, others in IMPORTS.items():
        if not module.startswith("atr_moco_plugin.data."):
            continue
        floor = DATA_FLOORS.index(module.split(".")[2])
        for other in others:
            if other.startswith("atr_moco_plugin.data."):
                assert DATA_FLOORS.index(other.split(".")[2]) <= floor, f"{module} imports {other}"


def test_no_files_import_each_other_in_a_circle() -> None:
    # The faces of packages only hand names on.
    graph = {
        module: {other for other in others if MODULES[other].name != "__init__.py"}
        for module, others in IMPORTS.items()
        if MODULES[module].name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_every_folder_is_a_package() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path.parent


def test_git_ignores_no_file_of_the_package() -> None:
    """The wheel leaves out what git ignores, and a clean checkout does not have it."""
    root = PACKAGE.parent
    files = [str(path.relative_to(root)) for path in PACKAGE.rglob("*") if path.suffix != ".pyc"]
    names = "\n".join(name for name in files if "__pycache__" not in name)
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    found = subprocess.run(command, cwd=root, input=names, capture_output=True, text=True)
    if found.returncode == 128:
        pytest.skip("not a git checkout")
    assert found.stdout == ""


def test_every_folder_says_what_belongs_in_it() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "atr_moco_plugin":
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert len(text.split()) >= 12, f"{module}: say what belongs here, what is not imported"


def test_files_are_short() -> None:
    long = {
        module: lines
        for module, path in MODULES.items()
        if (lines := len(path.read_text().splitlines())) > 300
    }
    assert not long
