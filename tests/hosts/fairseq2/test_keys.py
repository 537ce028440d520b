"""Keys of a recipe's configuration, looked up without importing what the recipe needs."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

from atr_moco_plugin.hosts.fairseq2.config.known_keys import RECIPES, unknown_key

PRESETS = Path(__file__).parents[3] / "recipes"


def sections(config: Any, where: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every section of a configuration with the names of its fields."""
    fields = [x.name for x in dataclasses.fields(config)]
    yield where, fields
    for name in fields:
        value = getattr(config, name)
        # Options of a part are the part's own, and checked with it.
        if dataclasses.is_dataclass(value) and name != "config":
            yield from sections(value, f"{where}{name}.")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_key_of_a_recipe_is_known_and_no_other(recipe: str) -> None:
    module, name = RECIPES[recipe]
    config = getattr(importlib.import_module(module), name)()
    count = 0
    for where, fields in sections(config):
        assert unknown_key(recipe, ["OUT", "--config", *(f"{where}{x}=1" for x in fields)]) is None
        wrong = f"{where}{fields[0]}x"
        said = unknown_key(recipe, ["OUT", "--no-rich", "--config", f"{wrong}=1"])
        assert said is not None and f"`{wrong}` is not known" in said, wrong
        assert f"Did you mean `{fields[0]}`?" in said
        count += 1
    assert count > 10 or recipe in ("evaluate", "rank_study")


# `finetune` reads its keys itself: tests/finetuning.
PRESET_FILES = sorted(x for x in PRESETS.glob("*.yaml") if x.stem != "finetune")


@pytest.mark.parametrize("preset", PRESET_FILES, ids=lambda x: x.stem)
def test_presets_have_known_keys(preset: Path, tmp_path: Path) -> None:
    recipe = preset.stem.removesuffix("_8gpu")
    assert unknown_key(recipe, ["OUT", "--config-file", str(preset)]) is None
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(preset.read_text() + "\nregimen:\n  x: 1\n")
    said = unknown_key(recipe, ["OUT", f"--config-file={wrong}", "--config", "a=1"])
    assert said is not None and "`regimen` is not known; the recipe takes" in said


def test_a_second_file_of_keys_is_named() -> None:
    """It took the place of the first."""
    said = unknown_key("toy", ["OUT", "--config-file", "a.yaml", "--config-file=b.yaml"])
    assert said is not None and said.startswith("--config-file is given twice")


@pytest.mark.parametrize(
    "argument",
    [
        "criterion.config.anything=1", "model.config_overrides.audio.x=1", "hooks.mine.x=1",
        "del:regime.num_steps", "set:regime.num_steps=3", "regime={num_steps: 3}", "criterion=atc",
        "dataset.augment.gain_db=3", "lr_scheduler.config.x=2", "optimizer.config.x=2", "=", "x",
    ],
)  # fmt: skip
def test_what_is_for_others_to_check(argument: str) -> None:
    expected = "`` is not known" if argument == "=" else None
    said = unknown_key("toy", ["OUT", "--config", argument])
    assert said is None if expected is None else expected in str(said)


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_that_another_silences_is_named(order: int) -> None:
    pairs = ["criterion=sogclr", "criterion.config.rho=1.5"][::order]
    said = unknown_key("toy", ["OUT", "--config", *pairs])
    assert said == (
        "`criterion=sogclr` sets all of `criterion`, and `criterion.config.rho=1.5` would be lost: "
        "write `criterion.name=sogclr`."
    )
    said = unknown_key("toy", ["OUT", "--config", pairs[0], "--config", pairs[1]])
    assert said is not None and "would be lost" in said
    alone = ["criterion.name=sogclr", "criterion.config.rho=1.5", "del:criterion.config"]
    assert unknown_key("toy", ["OUT", "--config", *alone]) is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("dataset.batch_size=2.5", "`dataset.batch_size` is 2.5, expected a whole number."),
        ("regime.num_steps=true", "`regime.num_steps` is True, expected a whole number."),
        ("regime={num_steps: .inf}", "`regime.num_steps` is inf, expected a whole number."),
        ("optimizer.config.lr=true", "`optimizer.config.lr` is True, expected a number."),
        (
            "lr_scheduler.config.num_warmup_steps=9.5",
            "`lr_scheduler.config.num_warmup_steps` is 9.5, expected a whole number.",
        ),
        (
            "optimizer.config.betas=[true, 0.9]",
            "`optimizer.config.betas` is [True, 0.9], expected numbers.",
        ),
        ("dataset.max_seconds=2.5", None),
        ("regime.num_steps=1e3", None),
        ("report=false", None),
    ],
)
def test_a_number_that_fairseq2_would_round_is_told(argument: str, message: str | None) -> None:
    assert unknown_key("toy", ["OUT", "--config", argument]) == message


def test_a_number_in_a_list_is_told_too() -> None:
    said = unknown_key("evaluate", ["OUT", "--config", "rerank_k=[16, 2.5]"])
    assert said == "`rerank_k` is [16, 2.5], expected whole numbers."


def test_a_wrong_key_is_told_before_anything_is_imported(tmp_path: Path) -> None:
    command = ["-X", "importtime", "-m", "atr_moco_plugin.recipes.toy", str(tmp_path / "out")]
    result = subprocess.run(
        [sys.executable, *command, "--config", "regime.nm_steps=3"], capture_output=True, text=True
    )
    assert result.returncode == 2
    (error,) = [x for x in result.stderr.splitlines() if x.startswith("ERROR: ")]
    assert "`regime.nm_steps` is not known" in error and "Did you mean `num_steps`?" in error
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "fairseq2", "transformers", "matplotlib"}
    assert not (tmp_path / "out").exists()
