from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import dacite
import pytest

from atr_moco_plugin.data.sets.registry import (
    DATASETS,
    dataset_config,
    open_dataset,
    with_options,
)
from atr_moco_plugin.errors import InputError


def test_the_data_sets_of_the_documentation_are_there() -> None:
    assert {"toy", "esc50", "audiocaps", "clotho", "wavcaps", "manifest"} <= set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_configuration_is_frozen_and_every_field_is_documented(name: str) -> None:
    kind, _ = DATASETS[name]
    assert is_dataclass(kind) and kind.__dataclass_params__.frozen
    for field in fields(kind):
        assert any(f" {field.name}: " in (base.__doc__ or "") for base in kind.__mro__)
    assert kind()  # a recipe needs defaults of every field


@pytest.mark.parametrize("name", DATASETS)
def test_an_opener_says_that_it_needs_a_root(name: str) -> None:
    kind, opener = DATASETS[name]
    if "root" in get_type_hints(kind):
        with pytest.raises(ValueError, match="needs its (folder|table): set root"):
            opener(kind())


@pytest.mark.parametrize("name", ["audiocaps", "clotho", "wavcaps", "manifest"])
def test_a_configuration_is_made_of_plain_values(name: str) -> None:
    kind, opener = DATASETS[name]
    config = dacite.from_dict(kind, {"root": "x"}, dacite.Config(cast=[Path]))
    with pytest.raises(FileNotFoundError, match="x: no.* there is no such folder"):
        opener(config)


def test_options_of_a_recipe_open_a_data_set(tmp_path: Path) -> None:
    config = dataset_config("toy", {"num_train": 6, "num_valid": 2, "num_test": 2})
    assert len(open_dataset("toy", config).clips("train")) == 6
    assert dataset_config("clotho", {"root": str(tmp_path)}).root == tmp_path
    with pytest.raises(InputError, match="'cloth', expected one of toy, .*Did you mean clotho"):
        dataset_config("cloth", {})
    with pytest.raises(InputError, match="overrides.rot` is not known; .*Did you mean `root`"):
        dataset_config("clotho", {"rot": "x"})
    with pytest.raises(InputError, match="`dataset.config_overrides.strict` is 'yes', but must"):
        dataset_config("clotho", {"strict": "yes"})


def test_options_are_set_where_a_data_set_has_them() -> None:
    assert with_options(dataset_config("clotho", {}), allow_shared_audio=True).allow_shared_audio
    assert with_options(dataset_config("toy", {}), allow_shared_audio=True) == dataset_config(
        "toy", {}
    )
