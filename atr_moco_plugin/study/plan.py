"""Which runs a study is made of, and whether a folder holds one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.criterion.positives import PositivesMode
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.yaml12 import NoYamlError, dump_yaml, load_yaml

OVERRIDES = "overrides.yaml"
"""What a study sets of a run's configuration, in the run's folder."""

RECIPE = "recipe.txt"
"""The recipe whose configuration that is, beside it."""


@dataclass(kw_only=True)
class StudyConfig(Config):
    """A rank study. Every combination of the lists is one run."""

    recipe: Literal["toy", "scenes", "esc50", "audiocaps", "clotho"] = "toy"
    """What is trained: ``python -m atr_moco_plugin.recipes.RECIPE``."""

    queue_sizes: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 1024])
    """Rows of the queues; 0 trains without."""

    auto: bool = False
    """Also train with ``queue_size: auto``, and say whether it chose as well as the best size."""

    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of a run, for the spread."""

    momenta: list[float] = field(default_factory=list)
    """EMA factors; none takes the recipe's."""

    positives: list[PositivesMode] = field(default_factory=list)
    """Which items count as positives; none takes the recipe's."""

    jobs: int = 1
    """Runs side by side, each one process; 0 trains nothing and shows what is finished."""

    threads: int = 1
    """CPU threads of each run."""

    config: dict[str, Any] = field(default_factory=dict)
    """Configuration of the recipe for every run, such as ``dataset.config_overrides.root``."""

    def problems(self) -> Iterator[str]:
        for name in ("queue_sizes", "seeds", "momenta", "positives"):
            values = getattr(self, name)
            if not values and name in ("queue_sizes", "seeds"):
                yield f"`{name}` is empty, expected one value or more."
            if len(set(values)) < len(values):
                yield f"`{name}` has a value twice: {values}."
        if min(self.queue_sizes, default=0) < 0:
            yield f"`queue_sizes` has {min(self.queue_sizes)}, expected 0 or more."
        unknown = set(self.positives) - set(get_args(PositivesMode))
        if unknown:
            yield (
                f"`positives` has {', '.join(map(repr, sorted(unknown)))}, expected some of "
                f"{', '.join(get_args(PositivesMode))}."
            )
        yield from in_range(self, "jobs", least=0)
        yield from in_range(self, "threads", least=1)
        if not isinstance(self.config.get("criterion", {}), Mapping):
            yield (
                "`config.criterion` is a name; write `config.criterion.name`, since the study "
                "sets options of the criterion too."
            )
        stated = dict(leaves(self.config))
        if stated.get("regime.score_metric", "") is None:
            yield (
                "`config.regime.score_metric` is null, but a study compares the checkpoints that "
                "validations score: leave it out, or name a figure such as r_sum."
            )
        if self.momenta and stated.get("criterion.config.keys") == "online":
            yield (
                "`momenta` does nothing with `config.criterion.config.keys` online, since the keys "
                "of the online encoder are no moving average: leave the list out."
            )
        for axis, key in self.axes().items():
            if key in stated:
                yield f"`config.{key}` is set by the list `{axis}`; leave it out."

    def axes(self) -> dict[str, str]:
        """The lists that are varied, with the keys of the recipe's configuration they set."""
        keys = {"queue_sizes": "criterion.config.queue_size", "seeds": "common.seed"}
        if self.momenta:
            keys["momenta"] = "criterion.config.momentum"
        if self.positives:
            keys["positives"] = "criterion.config.positives"
        return keys


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        name: of its folder, such as ``q256_s0``.
        overrides: what it sets of the recipe's configuration, nested.
        recipe: whose configuration that is.
    """

    name: str
    overrides: Mapping[str, Any]
    recipe: str


def plan(config: StudyConfig) -> list[Run]:
    """The runs, seed by seed, so that a study that is stopped early has all sizes."""
    axes = config.axes()
    order = [name for name in ("seeds", "momenta", "positives", "queue_sizes") if name in axes]
    runs = []
    lists = {name: getattr(config, name) for name in order}
    if config.auto:
        lists["queue_sizes"] = [*config.queue_sizes, "auto"]
    for values in product(*lists.values()):
        chosen = dict(zip(order, values, strict=True))
        name = f"q{chosen['queue_sizes']}_s{chosen['seeds']}"
        if "momenta" in chosen:  # 1 and 1.0 are one value
            name += f"_m{float(chosen['momenta'])!r}".removesuffix(".0")
        name += f"_p{chosen['positives']}" if "positives" in chosen else ""
        overrides = copy.deepcopy(config.config)
        for axis, value in chosen.items():
            _set(overrides, axes[axis], value)
        runs.append(Run(name, overrides, config.recipe))
    return runs


def check_folder(run: Run, folder: Path) -> None:
    """Refuse a folder that holds a run with another configuration.

    A run that a study started is compared with the overrides it was started with, any other run
    with its ``config.yaml``, where every override must be found.

    Raises:
        InputError: with the first key that differs.
    """
    saved, recipe = folder / OVERRIDES, folder / RECIPE
    if recipe.is_file() and (before := recipe.read_text(encoding="utf-8").strip()) != run.recipe:
        raise InputError(
            f"{folder} holds a run of the recipe {before}, and this study is of {run.recipe}: give "
            "another output folder."
        )
    wanted = dict(leaves(run.overrides))
    if saved.is_file():
        found = dict(leaves(read_yaml(saved)))
        compared = sorted(found.keys() | wanted.keys())
    elif (folder / "config.yaml").is_file():
        found = dict(leaves(read_yaml(folder / "config.yaml")))
        compared = sorted(wanted)
    else:
        return
    for key in compared:
        before, now = found.get(key, "not set"), wanted.get(key, "not set")
        if before != now:
            raise InputError(
                f"{folder} holds a run with another configuration: `{key}` was {before} and is "
                f"{now}. Give another output folder, or change the configuration back."
            )


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 file, as fairseq2 writes and reads them.

    Raises:
        InputError: when it is no YAML, or not a mapping.
    """
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, NoYamlError) as ex:
        raise InputError(f"{path} is not a readable YAML file: {ex}; repair it") from ex
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a mapping of keys to values; repair it.")
    return tree


def write_yaml(tree: Mapping[str, Any], stream: TextIO) -> None:
    """Write YAML 1.2 that fairseq2 reads."""
    stream.write(dump_yaml(tree))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = value
