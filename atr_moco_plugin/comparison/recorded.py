"""What a run or an evaluation has recorded about itself: its configuration, its seed, its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.io.changes import flat
from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.io.yaml12 import NoYamlError, load_yaml

_CONFIG, _FIGURES = "config.yaml", "retrieval.json"


_RANKS_BY = (
    "split", "dataset", "checkpoint", "autocast", "allow_unknown",
    "correct_bank", "correct_bank_size", "correct_chosen_on",
)  # fmt: skip
"""Keys of an evaluation that change a ranking; others say what is written beside it."""


@dataclass(frozen=True)
class Recorded:
    """What a folder says; everything is None where it does not.

    Attributes:
        config: keys with dots to values of the run's configuration, without its seed.
        seed: of the run.
        family: of the data set.
        overrides: the data set's own options.
        lost: the configuration of the run that an evaluation names, where it cannot be read; None
            where it can, and for a run.
    """

    config: Mapping[str, Any] | None = None
    seed: int | None = None
    family: str | None = None
    overrides: Mapping[str, Any] | None = None
    lost: Path | None = None


def read_recorded(folder: Path) -> Recorded:
    """Read ``config.yaml`` and ``retrieval.json`` of a folder with patience: they tell which runs
    differ in their seed alone, and where sound is, and a comparison does without.

    An evaluation has the configuration of the run whose model it evaluates, and its own.
    """
    config = _read_yaml(folder / _CONFIG)
    figures = object_if_whole(folder / _FIGURES)
    run = figures.get("run")
    data = figures.get("dataset")
    lost = None
    if isinstance(run, str):  # an evaluation
        own = {
            key: value for key, value in flat(config).items() if key.partition(".")[0] in _RANKS_BY
        }
        config = _read_yaml(Path(run) / _CONFIG)
        lost = None if config else Path(run) / _CONFIG
        values = {f"{key} of the run": value for key, value in flat(config).items()} | own
    else:
        values = flat(config)
    if not isinstance(data, dict):
        data = config.get("dataset")
        data = data if isinstance(data, dict) else {}
    seed = figures.get("seed", _at(config, "common", "seed"))
    overrides = data.get("config_overrides") or {}
    return Recorded(
        {key: value for key, value in values.items() if not _is_seed(key)} if config else None,
        seed if isinstance(seed, int) else None,
        data.get("family") if isinstance(data.get("family"), str) else None,
        overrides if isinstance(overrides, dict) else None,
        lost,
    )


def _is_seed(key: str) -> bool:
    return key.removesuffix(" of the run") == "common.seed"


def _at(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = load_yaml(file.read_bytes())
    except (OSError, NoYamlError):
        return {}
    return tree if isinstance(tree, dict) else {}
