"""Files of figures by step that a run goes on with: what it records again is dropped first."""

from __future__ import annotations

import json
from pathlib import Path

from atr_moco_plugin.io.atomic import new_file


def drop_after(file: Path, step: int) -> None:
    """Drop from a file of metrics what was recorded after a step, and a last line that a crash left
    half-written; the file is replaced at once.

    Args:
        file: JSON lines with the key ``Step``, or ``step``; none is no mistake.
        step: the last one to keep.
    """
    if not file.is_file():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    with new_file(file) as temporary:
        temporary.write_bytes(b"".join(kept))


def last_value(file: Path, key: str) -> float:
    """The number under a key in the last record of a file of metrics; 0 where there is none."""
    try:
        return float(json.loads(file.read_bytes().splitlines()[-1])[key])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0.0


def _step_of(line: bytes) -> int:
    """The step of a record, 0 for a line that is none."""
    try:
        record = json.loads(line)
        return int(record["Step"] if "Step" in record else record["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
