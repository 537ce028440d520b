from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.sets.manifest import ManifestConfig
from atr_moco_plugin.errors import InputError


@dataclass(frozen=True)
class Base(Config):
    root: Path | None = None
    name: str = "~"
    kind: Literal["white", "pink"] | None = "white"
    size: int | Literal["auto"] = "auto"
    share: float = 0.5
    sizes: list[int] = field(default_factory=list)

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "share", least=0, most=1)


@dataclass(frozen=True)
class Extended(Base):
    width: float | None = None
    rate: float = 1.0
    dropout: float = 0.0

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "width", least=4)
        yield from in_range(self, "rate", above=0)
        yield from in_range(self, "dropout", least=0, below=1)


def test_all_path_options_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUDIO", str(tmp_path / "audio"))
    assert Base(Path("~/x")) == Base("$HOME/x") == Base(tmp_path / "x")  # type: ignore[arg-type]
    config = ManifestConfig(root=Path("~/m.csv"), audio=Path("$AUDIO"))
    assert (config.root, config.audio) == (tmp_path / "m.csv", tmp_path / "audio")
    assert AudioReader(16_000, cache_dir=Path("~/cache")).cache_dir == tmp_path / "cache"


@pytest.mark.parametrize(
    "options",
    [
        {"kind": None, "size": 3, "share": 1},
        {"width": 4, "rate": 1e-9, "dropout": 0},
        {"size": "auto", "width": None},
        {"width": 10**400},
    ],
)
def test_what_fits_is_taken(options: dict[str, object]) -> None:
    Extended(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 2}, "`share` is 2, expected 0 to 1."),
        ({"share": math.nan}, "`share` is nan, expected 0 to 1."),
        ({"width": 3}, "`width` is 3, expected 4 or more."),
        ({"width": math.inf}, "`width` is inf, expected 4 or more."),
        ({"rate": 0}, "`rate` is 0, expected above 0."),
        ({"dropout": 1.0}, "`dropout` is 1.0, expected at least 0 and below 1."),
        ({"kind": "blue"}, "`kind` is 'blue', expected one of white, pink or None."),
        ({"size": "many"}, "`size` is 'many', expected int or auto."),
        ({"size": None}, "`size` is None, expected int or auto."),
        ({"kind": "blue", "share": 2}, "`kind` is 'blue', expected one of white, pink or None."),
        ({"share": None}, "`share` is None, expected float."),
        ({"share": True}, "`share` is True, expected float."),
        ({"width": False}, "`width` is False, expected float or None."),
        ({"size": True}, "`size` is True, expected int or auto."),
        ({"size": 64.0}, "`size` is 64.0, expected int or auto."),
        ({"size": 2.5}, "`size` is 2.5, expected int or auto."),
        ({"sizes": [64, 2.5]}, "`sizes` is [64, 2.5], expected list"),
        ({"sizes": [True]}, "`sizes` is [True], expected list"),
        ({"share": 10**400}, "`share` is 1000"),
        ({"width": -(10**400)}, "`width` is -1000"),
        ({"root": "$NOT_SET/x"}, "`root` is '$NOT_SET/x', but the environment variable $NOT_SET"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Extended(**options)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
