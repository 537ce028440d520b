"""JSON files of a run, which a crash may have left half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def object_if_whole(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing, half-written or something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
