"""Whether the keys of a recipe's configuration are known, asked before anything heavy is imported.

fairseq2 finds an unknown key too, but only after it and all that a run needs are imported. The
fields of the configuration classes are read from their source, and values are left to fairseq2.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RECIPES = {
    "toy": "atr_moco_plugin.recipes.toy.ToyRecipeConfig",
    "esc50": "atr_moco_plugin.recipes.esc50.Esc50RecipeConfig",
    "audiocaps": "atr_moco_plugin.recipes.audiocaps.AudiocapsRecipeConfig",
    "clotho": "atr_moco_plugin.recipes.clotho.ClothoRecipeConfig",
    "evaluate": "atr_moco_plugin.hosts.fairseq2.config.evaluate.EvaluateRecipeConfig",
    "rank_study": "atr_moco_plugin.study.plan.StudyConfig",
}
"""The configuration class of each recipe."""


def unknown_key(recipe: str, arguments: Sequence[str]) -> str | None:
    """The first key of a command line that its recipe does not know.

    Args:
        recipe: its name in :data:`RECIPES`.
        arguments: what follows the recipe on the command line.

    Returns:
        One sentence with the nearest key; None where all keys are known or cannot be looked up.
    """
    module, _, name = RECIPES[recipe].rpartition(".")
    root = _class(module, name)
    for tree in _configuration(arguments):
        problem = _unknown(root, tree, "")
        if problem is not None:
            return problem
    return None


class _Class(NamedTuple):
    """A configuration class: its fields, each with the class it holds, where that is one."""

    fields: Mapping[str, tuple[str, str] | None]


def _unknown(kind: _Class | None, tree: Mapping[Any, Any], where: str) -> str | None:
    if kind is None or not kind.fields:
        return None
    for key, value in tree.items():
        if str(key).startswith("_"):  # a directive of fairseq2
            continue
        if key not in kind.fields:
            near = difflib.get_close_matches(str(key), kind.fields, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            within = f"`{where[:-1]}`" if where else "the recipe"
            return f"`{where}{key}` is not known; {within} takes {', '.join(kind.fields)}.{hint}"
        held = kind.fields[key]
        if held is not None and isinstance(value, Mapping):
            problem = _unknown(_class(*held), value, f"{where}{key}.")
            if problem is not None:
                return problem
    return None


@functools.cache
def _class(module: str, name: str) -> _Class | None:
    """A class by the source of its module; None where it is not to be found there."""
    source = _source(module)
    if source is None:
        return None
    if name not in source.classes:
        origin = source.imports.get(name)
        return None if origin is None else _class(*origin)
    found: dict[str, tuple[str, str] | None] = {}
    for base in source.classes[name].bases:
        inherited = _class(module, base.id) if isinstance(base, ast.Name) else None
        found |= inherited.fields if inherited else {}
    for line in source.classes[name].body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            found[line.target.id] = next(_held(module, line.annotation), None)
    return _Class(found)


def _held(module: str, annotation: ast.expr) -> Iterator[tuple[str, str]]:
    """The classes that an annotation such as ``Section | str`` names."""
    if isinstance(annotation, ast.BinOp):
        yield from _held(module, annotation.left)
        yield from _held(module, annotation.right)
    elif isinstance(annotation, ast.Name):
        source = _source(module)
        if source and (annotation.id in source.classes or annotation.id in source.imports):
            yield module, annotation.id


class _Source(NamedTuple):
    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]


@functools.cache
def _source(module: str) -> _Source | None:
    # Only the top package is looked up: looking up one below would import those above it.
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *below)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return _parsed(file)
    return None


def _parsed(file: Path) -> _Source:
    lines = ast.parse(file.read_text(encoding="utf-8")).body
    return _Source(
        {x.name: x for x in lines if isinstance(x, ast.ClassDef)},
        {
            name.asname or name.name: (line.module, name.name)
            for line in lines
            if isinstance(line, ast.ImportFrom) and line.module and not line.level
            for name in line.names
        },
    )


def _configuration(arguments: Sequence[str]) -> Iterator[Mapping[Any, Any]]:
    """The file after ``--config-file`` and the pairs after ``--config``, as nested mappings."""
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option, _, argument = argument.partition("=")
            if not argument:
                continue
        if option == "--config-file":
            yield from _file(Path(argument).expanduser())
            option = ""
        elif option == "--config" and "=" in argument and not argument.startswith("del:"):
            keys = argument.partition("=")[0].strip().removeprefix("set:").split(".")
            tree: Mapping[Any, Any] = {keys[-1]: None}
            for key in reversed(keys[:-1]):
                tree = {key: tree}
            yield tree


def _file(file: Path) -> Iterator[Mapping[Any, Any]]:
    from ruamel.yaml import YAML

    try:
        tree = YAML(typ="safe", pure=True).load(file)
    # fairseq2 reads it again and says what is wrong with it.
    except Exception:
        return
    if isinstance(tree, Mapping):
        yield tree
