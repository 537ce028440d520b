from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from atr_moco_plugin.config_builder import build_config


@dataclass(kw_only=True)
class Inner:
    depth: int = 1


@dataclass(kw_only=True)
class Options:
    rate: float = 0.1
    mode: Literal["fast", "exact"] = "exact"
    path: str | None = None
    size: int | Literal["auto"] = "auto"
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"`rate` is {self.rate}, expected 0 or more.")


@dataclass(kw_only=True)
class Places:
    folder: Path | None = None
    source: str | None = None


def test_texts_become_paths_where_a_path_is_due() -> None:
    places = build_config(Places, {"folder": "a/b", "source": "hf://a//b"}, "x")
    assert places == Places(folder=Path("a/b"), source="hf://a//b")
    with pytest.raises(ValueError, match=r"`x\.folder` is 3, but must be Path or None"):
        build_config(Places, {"folder": 3}, "x")


def test_builds_nested_dataclasses() -> None:
    options = build_config(Options, {"rate": 1, "mode": "fast", "inner": {"depth": 3}}, "x")
    assert options == Options(rate=1, mode="fast", inner=Inner(depth=3))


@pytest.mark.parametrize("size", [12, "auto"])
def test_a_union_takes_each_of_its_types(size) -> None:
    assert build_config(Options, {"size": size}, "x").size == size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"`x\.rat` is not known; `x` takes rate, mode, path, size, inner\..*`rate`"),
        ({"mode": "slow"}, r"`x\.mode` is 'slow', but must be one of fast, exact"),
        ({"rate": "much"}, r"`x\.rate` is 'much', but must be float"),
        ({"size": "many"}, r"`x\.size` is 'many', but must be int or auto"),
        ({"inner": {"depth": "a"}}, r"`x\.inner\.depth` is 'a', but must be int"),
        ({"inner": {"deep": 2}}, "deep"),
        ({"rate": -1.0}, "`rate` is -1.0"),
    ],
)
def test_what_does_not_fit_is_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(Options, values, "x")
