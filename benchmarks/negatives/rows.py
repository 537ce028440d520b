"""Finished runs as lines of JSON, which are committed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import write_atomically
from benchmarks.negatives.code import digest
from benchmarks.negatives.data import DATA
from benchmarks.negatives.variants import VARIANTS, criterion_options

RESULTS = Path(__file__).parent / "results"
"""Where rows, prices and searched rates are committed."""

Row = dict[str, Any]


class RowFile:
    """Rows of one kind, each known by some of its values; a later one takes an earlier one's place.

    Args:
        path: the file; it is made with the first row.
        key: names of the values that a row is known by.

    Raises:
        InputError: for a whole line that is no row.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self._key = path, tuple(key)
        self._lock = threading.Lock()
        self._rows: dict[tuple[Any, ...], Row] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, start=1):
            # Only a write that was cut short ends without a line feed; its run is made anew.
            if line.endswith(b"\n"):
                row = self._parsed(line, number)
                self._rows[self.key(row)] = row
        if lines and not lines[-1].endswith(b"\n"):
            write_atomically(path, b"".join(lines[:-1]).decode("utf-8"))

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
            self.key(row)
        except (ValueError, KeyError, TypeError) as ex:
            raise InputError(
                f"{self.path}, line {number}: expected a JSON object with {', '.join(self._key)}; "
                "repair the line or remove it."
            ) from ex
        return dict(row)

    def key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """What a row is known by."""
        return tuple(row[name] for name in self._key)

    def find(self, **values: Any) -> Row | None:
        """The row with these values of the key."""
        return self._rows.get(self.key(values))

    def all(self) -> list[Row]:
        """All rows, the earliest first."""
        with self._lock:
            return list(self._rows.values())

    def add(self, row: Row) -> None:
        """Append a row; it is on the disk when this returns."""
        line = json.dumps(row, allow_nan=False) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._rows[self.key(row)] = row

    def forget(self, row: Mapping[str, Any]) -> None:
        """Take a row out of what is known here; in the file, the one that is made anew takes its
        place."""
        with self._lock:
            self._rows.pop(self.key(row), None)


def row_file(folder: Path) -> RowFile:
    """The runs."""
    return RowFile(folder / "rows.jsonl", ("data", "variant", "batch", "seed"))


def rate_file(folder: Path) -> RowFile:
    """The runs that look for a learning rate."""
    return RowFile(folder / "rates.jsonl", ("data", "variant", "batch", "factor"))


def is_stale(row: Mapping[str, Any]) -> bool:
    """Whether a row was made by other code of its criterion than what is here, or by none of it, or
    with other options."""
    variant = VARIANTS.get(row["variant"])
    if variant is None:
        return True
    try:
        momentum = DATA[row["data"]].settings[row["pairs"]].momentum
        options = criterion_options(variant, momentum)
        return bool(row["code"] != digest(variant.kind) or row["options"] != options)
    except (InputError, KeyError):
        return True


def finite(values: Any) -> Any:
    """The same without numbers that JSON does not have; they become None."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    if isinstance(values, float) and not abs(values) < float("inf"):
        return None
    return round(values, 6) if isinstance(values, float) else values
