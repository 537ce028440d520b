"""Find a mistyped key of a recipe's configuration before anything heavy is imported, one that
another key would silence, or a number that would be rounded.

fairseq2 finds an unknown key too, but only after a run's ten seconds of imports, and takes 2.5 for
2. The fields of the configuration classes are read from their source here; other values are left to
fairseq2.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.hosts.fairseq2.config.command_line import configurations, lost_pair, parse

Place = tuple[str, str]
"""A module and the name of a class in it."""


@dataclass(frozen=True)
class _Field:
    """What the annotation of a field names, with the class of its section where it is one."""

    types: frozenset[str]
    section: Place | None = None


RECIPES: dict[str, Place] = {
    "toy": ("atr_moco_plugin.recipes.toy", "ToyRecipeConfig"),
    "esc50": ("atr_moco_plugin.recipes.esc50", "Esc50RecipeConfig"),
    "scenes": ("atr_moco_plugin.recipes.scenes", "ScenesRecipeConfig"),
    "audiocaps": ("atr_moco_plugin.recipes.audiocaps", "AudiocapsRecipeConfig"),
    "clotho": ("atr_moco_plugin.recipes.clotho", "ClothoRecipeConfig"),
    "evaluate": ("atr_moco_plugin.hosts.fairseq2.config.evaluate", "EvaluateRecipeConfig"),
    "rank_study": ("atr_moco_plugin.study.plan", "StudyConfig"),
}
"""The configuration class of each recipe."""

_COMPONENTS: dict[str, Place] = {
    "optimizer.config": (
        "atr_moco_plugin.hosts.fairseq2.config.optimizer",
        "RetrievalAdamWConfig",
    ),
    "lr_scheduler.config": ("fairseq2.recipe.config", "CosineAnnealingLRConfig"),
}
"""The usual class of sections that may be of another one, whose keys are not known therefore."""


def unknown_key(recipe: str, arguments: Sequence[str]) -> str | None:
    """Name the first key of a command line that its recipe does not know, whose number it would
    round, or that would be lost, or a second file of keys.

    Args:
        recipe: its name in :data:`RECIPES`.
        arguments: what follows the recipe on the command line.

    Returns:
        One sentence, with the nearest key; None where all keys are known or cannot be looked up.
    """
    if sum(argument.partition("=")[0] == "--config-file" for argument in arguments) > 1:
        return "--config-file is given twice, and the second would be all that counts: join them."
    parsed = parse(arguments)
    found = (unknown_in(RECIPES[recipe], tree) for tree in configurations(parsed))
    unknown = next((problem for problem in found if problem is not None), None)
    return unknown or lost_pair(parsed.config)


def unknown_in(place: Place, tree: Mapping[str, Any]) -> str | None:
    """The first of nested keys that a configuration class does not know or whose number it would
    round, as :func:`unknown_key` names it."""
    return _unknown(place, tree, "")


def _unknown(
    place: Place, tree: Mapping[Any, Any], where: str, *, others: bool = False
) -> str | None:
    """``others``: whether keys may be of another class than ``place``."""
    fields = _fields(*place)
    for key, value in tree.items() if fields else ():
        # A directive of fairseq2 begins with a line.
        if str(key).startswith("_") or (others and key not in fields):
            continue
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            within = f"`{where[:-1]}`" if where else "the recipe"
            return f"`{where}{key}` is not known; {within} takes {', '.join(fields)}.{hint}"
        problem = _other_number(f"{where}{key}", value, fields[key])
        component = _COMPONENTS.get(f"{where}{key}")
        section = fields[key].section or component
        if problem is None and section is not None and isinstance(value, Mapping):
            problem = _unknown(section, value, f"{where}{key}.", others=component is not None)
        if problem is not None:
            return problem
    return None


def _other_number(key: str, value: object, field: _Field) -> str | None:
    """fairseq2 takes the whole part of a fraction, and ``true`` for 1."""
    numbers = field.types & {"int", "float"}
    expected = "whole numbers" if numbers == {"int"} else "numbers"
    if not isinstance(value, list):
        expected = f"a {expected[:-1]}"
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool):
            wrong = bool(numbers) and "bool" not in field.types
        else:
            wrong = numbers == {"int"} and isinstance(one, float) and not one.is_integer()
        if wrong:
            return f"`{key}` is {value}, expected {expected}."
    return None


@functools.cache
def _fields(module: str, name: str) -> dict[str, _Field]:
    """The fields of a class.

    Empty for what is no class, or has no source to read.
    """
    found = _names(module).get(name)
    if isinstance(found, tuple):
        return _fields(*found)
    fields: dict[str, _Field] = {}
    if found is not None:
        for base in found.bases:
            fields |= _fields(module, base.id) if isinstance(base, ast.Name) else {}
        for line in found.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                fields[line.target.id] = _field(module, line.annotation)
    return fields


def _field(module: str, annotation: ast.expr) -> _Field:
    """What an annotation such as ``Section | str`` names; its section is the first class there."""
    known = _names(module)
    used = [x.id for x in ast.walk(annotation) if isinstance(x, ast.Name)]
    section = next(((module, name) for name in used if name in known), None)
    return _Field(frozenset(used), section)


@functools.cache
def _names(module: str) -> dict[str, ast.ClassDef | Place]:
    """The classes of a module, and where it imports its other names from."""
    names: dict[str, ast.ClassDef | Place] = {}
    # Only the top package is looked up: looking up one below would import those above it.
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *below)
        file = path.with_suffix(".py") if below else path / "__init__.py"
        file = file if file.is_file() else path / "__init__.py"
        for line in ast.parse(file.read_text("utf-8")).body if file.is_file() else ():
            if isinstance(line, ast.ClassDef):
                names[line.name] = line
            elif isinstance(line, ast.ImportFrom) and line.module and not line.level:
                names |= {x.asname or x.name: (line.module, x.name) for x in line.names}
    return names
