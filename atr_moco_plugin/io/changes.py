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
    """Each value that is there before and now and differs, such as ``seed was 1 and is 2``."""
    return "; ".join(
        f"{key} was {before[key]} and is {value}"
        for key, value in now.items()
        if key in before and before[key] != value
    )
