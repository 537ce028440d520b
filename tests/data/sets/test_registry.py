from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import dacite
import pytest

from atr_moco_plugin.data.sets.registry import DATASETS


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
        with pytest.raises(ValueError, match="needs its folder: set root"):
            opener(kind())


@pytest.mark.parametrize("name", ["audiocaps", "clotho", "wavcaps", "manifest"])
def test_a_configuration_is_made_of_plain_values(name: str) -> None:
    kind, opener = DATASETS[name]
    config = dacite.from_dict(kind, {"root": "x"}, dacite.Config(cast=[Path]))
    with pytest.raises(FileNotFoundError, match="x: no.* there is no such folder"):
        opener(config)
