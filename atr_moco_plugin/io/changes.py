"""Nested values by dotted keys, and what has changed between two sets of them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their keys with dots; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Each value that is there before and now and differs, such as ``seed was 1 and is 2``; also
    one that was not nested and is, or the other way round: ``x was None and is {'y': 1}``."""
    found = []
    for key in dict.fromkeys((*now, *before)):
        was, value = _there(before, key), _there(now, key)
        if was and value and was != value:
            found.append(f"{key} was {was[0]} and is {value[0]}")
    return "; ".join(found)


def _there(values: Mapping[str, Any], key: str) -> list[Any]:
    """The value of a key, or the values of the keys within it; empty where it is not there."""
    if key in values:
        return [values[key]]
    start = f"{key}."
    within = {x.removeprefix(start): value for x, value in values.items() if x.startswith(start)}
    return [within] if within else []
