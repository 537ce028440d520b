"""JSON-lines file of step records that a resumed run continues without duplicated steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_file


class StepFile:
    """File to append to, with one JSON object with a ``step`` in each line.

    A run that resumed from an earlier checkpoint appends steps that the file has already. The lines
    from that step on are dropped first, through a temporary file that replaces the old one at once.
    So is a last line that a crash left half-written.

    Args:
        path: the file; it and its folders are made at the first :meth:`append`.
        alike: values that all records have, without which they could not be compared.

    Raises:
        InputError: when a line other than the last is not a JSON object with an integer ``step``,
            or the last record has another value of ``alike``.
    """

    def __init__(
        self, path: str | os.PathLike[str], alike: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.last_step: int | None = None
        self._torn = False
        last = "{}"
        for step, line in self._lines():
            self.last_step = step if self.last_step is None else max(self.last_step, step)
            last = line
        record = json.loads(last)
        for key, value in (alike or {}).items():
            if record.get(key, value) != value:
                raise InputError(
                    f"{self.path} has records whose {key} is {record[key]}, and it is {value} now: "
                    "one curve would be of both; set it back, or move the file away."
                )

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record as the last line.

        Args:
            record: JSON-ready values with an integer ``step``; NaN is refused.
        """
        step = int(record["step"])
        line = json.dumps(record, allow_nan=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._torn or (self.last_step is not None and step <= self.last_step):
            self._drop_from(step)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.last_step = step

    def _drop_from(self, step: int) -> None:
        with new_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(line for kept, line in self._lines() if kept < step)
            file.flush()
            os.fsync(file.fileno())
        self._torn = False

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The complete lines with their steps; sets ``_torn`` when the last one is half-written."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # Only a write that a crash cut short ends without a line feed.
                if not line.endswith(b"\n"):
                    self._torn = True
                    return
                yield self._step(line, number), line.decode("utf-8")

    def _step(self, line: bytes, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path}, line {number}: expected a JSON object with an integer step; "
                "repair or move the file, or give another path."
            ) from error
