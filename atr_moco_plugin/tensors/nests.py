"""Tensors in nests of tuples, lists and mappings, as towers take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from typing import Any

from torch import Tensor


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A nest with each of its tensors changed, of the same types; what has none to change is the
    very object.

    Args:
        change: gives the new tensor, or the same one.
        value: the nest.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {name: map_tensors(change, item) for name, item in value.items()}
        if all(items[name] is item for name, item in value.items()):
            return value
        new: Any = copy(value) if isinstance(value, MutableMapping) else {}
        for name, item in items.items():
            new[name] = item
        return new
    if isinstance(value, list | tuple):
        changed = [map_tensors(change, item) for item in value]
        if all(x is y for x, y in zip(changed, value, strict=True)):
            return value
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    return value
