"""The inputs of a tower in chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from atr_moco_plugin.contracts import Inputs
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.nests import map_tensors, tensors_of


def cut(inputs: Inputs, chunk_size: int) -> Iterator[dict[str, Any]]:
    """Rows of every tensor, ``chunk_size`` at a time.

    Args:
        inputs: keyword arguments of a tower: tensors with a row for each clip or caption, and nests
            of tuples, lists and mappings with such. Else what has no tensor is for all rows.
        chunk_size: 1 or more.

    Raises:
        InputError: the tensors have no number of rows in common, or a value for each row is none.
    """
    rows = _number_of_rows(inputs)
    for first in range(0, rows, chunk_size):
        part = slice(first, first + chunk_size)
        yield rows_of(inputs, part)


def _number_of_rows(inputs: Inputs) -> int:
    sizes = {name: set(_sizes(value)) for name, value in inputs.items()}
    found = set().union(*sizes.values())
    if len(found) != 1 or None in found:
        shown = ", ".join(
            f"{name} ({' and '.join(sorted(str(n) for n in of_one)) or 'no tensor'})"
            for name, of_one in sizes.items()
        )
        raise InputError(
            "Gradient caching cuts a batch into chunks of rows, but the inputs of a tower have no "
            f"number of rows in common: {shown}; leave `chunk_size` out."
        )
    (rows,) = found
    assert rows is not None
    for name, value in inputs.items():
        if rows in lengths_without_rows(value):
            raise InputError(
                f"Gradient caching cuts tensors into chunks of rows, but {name} has {rows} values "
                "that are no tensor, one for each row: make it a tensor, or leave `chunk_size` out."
            )
    return rows


def lengths_without_rows(value: Any) -> Iterator[int]:
    """How long the arrays, and the lists of numbers or of strings, in a nest are."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from lengths_without_rows(item)
    elif isinstance(value, np.ndarray):
        yield len(value) if value.ndim else 0
    elif isinstance(value, list | tuple):
        if value and all(isinstance(x, str | bool | int | float | np.generic) for x in value):
            yield len(value)
        else:
            for item in value:
                yield from lengths_without_rows(item)


def _sizes(value: Any) -> Iterator[int | None]:
    for x in tensors_of(value):
        yield x.size(0) if x.dim() else None


def rows_of(value: Any, index: Any) -> Any:
    """Rows of every tensor in a nest of tuples, lists and mappings; the rest stays as it is.

    Args:
        value: the nest.
        index: what the tensors are indexed with.
    """
    return map_tensors(lambda x: x[index], value)
