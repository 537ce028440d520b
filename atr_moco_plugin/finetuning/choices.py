"""Values of the configuration with their reasons, chosen one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.facts import Facts
from atr_moco_plugin.finetuning.sizes import trained_share

_Place = tuple[Any, ...]
"""Keys from the outermost to the innermost."""

FREEZE = {part: f"model.config_overrides.{part}.freeze" for part in ("audio", "text")}
ADAPTER = {part: f"model.config_overrides.{part}.adapter" for part in ("audio", "text")}
"""Keys of the two parts."""

_OPEN = (
    ("dataset", "config_overrides"), ("criterion", "config"), ("hooks", "*"),
    ("model", "config_overrides", "*", "config"),
    ("optimizer", "config"), ("lr_scheduler", "config"), ("model", "compile_options"),
)  # fmt: skip
"""Sections whose options are those of a part: the keys of a mapping that is the value of one are
the part's, such as names of files, and have no dots of this package."""


@dataclass(frozen=True)
class Choice:
    """One value of the configuration.

    Attributes:
        key: its key, such as ``dataset.batch_size``.
        value: the value.
        reason: why, in a sentence.
        given: whether the user has set it.
    """

    key: str
    value: Any
    reason: str
    given: bool = False


class Choices:
    """Choices one after the other; later ones see what earlier ones have become."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.made: dict[str, Choice] = {}

    def make(self, key: str, value: Any, reason: str) -> Any:
        """Choose a value, unless the user has."""
        if key in self.given:
            stated = self.given[key]
            note = "" if stated == value else f"; the plan would take {shown(value)}, {reason}"
            self.made[key] = Choice(key, stated, f"as you set it{note}", given=True)
        else:
            self.made[key] = Choice(key, value, reason)
        return self.made[key].value

    def __getitem__(self, key: str) -> Any:
        return self.made[key].value

    def value(self, key: str) -> Any:
        """What is chosen or set, ``None`` where neither is yet."""
        return self.made[key].value if key in self.made else self.given.get(key)

    def adapts(self, part: str) -> bool:
        """Whether the user has given a part an adapter."""
        return any(
            (key == ADAPTER[part] or key.startswith(f"{ADAPTER[part]}.")) and value is not None
            for key, value in self.given.items()
        )


def share_of(part: str, facts: Facts, choices: Choices) -> float:
    """How much of an encoder's layers keeps states for the backward pass."""
    if choices.adapts(part):
        return 1.0  # gradients go through all layers
    return trained_share(choices[FREEZE[part]], facts.part(part).layers)


def number_of(value: object, least: int) -> int:
    """A user's number as far as it is one: what is none is refused by the configuration itself."""
    usable = isinstance(value, int) and not isinstance(value, bool) and value >= least
    return int(value) if usable else least  # type: ignore[call-overload]


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping by dotted keys: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``. A mapping that is the
    value of a part's option stays one."""
    return {".".join(map(str, place)): value for place, value in _placed(values)}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping whose keys may have dots, at any depth, as a nested one without them, and paths as
    texts, as YAML has them. Keys within the value of a part's option stay as they are.

    Raises:
        InputError: where two keys are of one place and differ, whatever their order.
    """
    tree: dict[str, Any] = {}
    for place, value in _placed(values):
        branch = _without_paths(value)
        for name in reversed(place):
            branch = {name: branch}
        tree = joined(tree, branch)
    return tree


def joined(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Two nested mappings as one, neither of them in front of the other.

    Args:
        one: nested keys.
        other: nested keys.
        place: of both, for the message: nothing, or a dotted key with a dot behind it.

    Raises:
        InputError: for a key that has different values in the two.
    """
    tree = dict(one)
    for key, value in other.items():
        if key not in tree:
            tree[key] = value
            continue
        old = tree[key]
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            tree[key] = joined(old, value, f"{place}{key}.")
        elif not same_value(old, value):
            raise InputError(
                f"`{place}{key}` is set twice, to {old!r} and to {value!r}: keep one of the two."
            )
    return tree


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a key are the same; NaN is NaN, and two arrays are not."""
    try:
        return bool(one is other or one == other or (one != one and other != other))
    except (ValueError, RuntimeError):  # arrays and tensors have no one answer
        return False


def _placed(values: Mapping[Any, Any], above: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    """The place of each value, in order; one that is set twice comes twice."""
    for key, value in values.items():
        place = (*above, *(key.split(".") if isinstance(key, str) else (key,)))
        if isinstance(value, Mapping) and value and not _is_option(place):
            yield from _placed(value, place)
        else:
            yield place, value


def _is_option(place: _Place) -> bool:
    """Whether a place is that of a part's option, or within it."""
    return any(
        len(place) > len(section)
        and all(name in ("*", x) for name, x in zip(section, place, strict=False))
        for section in _OPEN
    )


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(x) for key, x in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def shown(value: object) -> str:
    """A value as it is printed."""
    return f"{value:g}" if isinstance(value, float) else str(value)
