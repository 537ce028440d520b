from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from ruamel.yaml import YAML

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe

PRESETS = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
CONFIGS = {"toy": "ToyRecipeConfig", "esc50": "Esc50RecipeConfig"}


def leaves(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def dump(monkeypatch: pytest.MonkeyPatch, capsys, recipe: str, *arguments: str) -> dict:
    module = importlib.import_module(f"atr_moco_plugin.recipes.{recipe}")
    monkeypatch.setattr(sys, "argv", ["recipe", "--dump-config", "--no-rich", *arguments])
    run_recipe(getattr(module, CONFIGS[recipe]))
    return YAML(typ="safe").load(io.StringIO(capsys.readouterr().out))


def test_there_is_a_preset_for_every_recipe() -> None:
    assert [path.stem for path in PRESETS] == sorted(CONFIGS)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_what_the_recipe_does_anyway(preset: Path, monkeypatch, capsys) -> None:
    default = dump(monkeypatch, capsys, preset.stem)
    with_preset = dump(monkeypatch, capsys, preset.stem, "--config-file", str(preset))
    assert with_preset == default
    found = dict(leaves(default))
    stated = dict(leaves(YAML(typ="safe").load(preset)))
    assert stated.items() <= found.items()
