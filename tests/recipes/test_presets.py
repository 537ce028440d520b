from __future__ import annotations

import importlib.util
import io
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from ruamel.yaml import YAML

import atr_moco_plugin.recipes

FOLDER = Path(__file__).parents[2] / "recipes"
PRESETS = sorted(FOLDER.glob("*.yaml"))
RECIPES = ("audiocaps", "clotho", "esc50", "evaluate", "finetune", "rank_study", "scenes", "toy")
VARIANTS = {"audiocaps_8gpu": "audiocaps", "clotho_8gpu": "clotho"}
"""Presets that change a recipe, and the recipe."""


def leaves(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def dump(monkeypatch: pytest.MonkeyPatch, capsys, recipe: str, *arguments: str) -> dict:
    """What ``python -m atr_moco_plugin.recipes.RECIPE --dump-config`` prints."""
    monkeypatch.setattr(sys, "argv", ["recipe", "--dump-config", *arguments])
    try:
        runpy.run_module(f"atr_moco_plugin.recipes.{recipe}", run_name="__main__", alter_sys=True)
    except SystemExit as ex:
        assert not ex.code
    return YAML(typ="safe").load(io.StringIO(capsys.readouterr().out))


def test_there_is_a_preset_for_every_recipe() -> None:
    package = Path(atr_moco_plugin.recipes.__file__).parent
    # `compare` has options of a command line and no configuration.
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "compare"}
    assert modules == set(RECIPES)
    assert {path.stem for path in PRESETS} == modules | set(VARIANTS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_says_what_the_recipe_does_anyway(name: str, monkeypatch, capsys) -> None:
    preset = FOLDER / f"{name}.yaml"
    default = dump(monkeypatch, capsys, name)
    with_preset = dump(monkeypatch, capsys, name, "--config-file", str(preset))
    assert with_preset == default
    found = dict(leaves(default))
    stated = dict(leaves(YAML(typ="safe").load(preset)))
    assert stated.items() <= found.items()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_states_and_nothing_else(name: str, monkeypatch, capsys) -> None:
    preset = FOLDER / f"{name}.yaml"
    recipe = VARIANTS[name]
    default = dict(leaves(dump(monkeypatch, capsys, recipe)))
    changed = dict(leaves(dump(monkeypatch, capsys, recipe, "--config-file", str(preset))))
    stated = dict(leaves(YAML(typ="safe").load(preset)))
    assert {path: default[path] for path in stated} != stated
    assert changed == {**default, **stated}
