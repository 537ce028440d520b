"""What has changed between two sets of values, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Each value that is there before and now and differs, such as ``seed was 1 and is 2``."""
    return "; ".join(
        f"{key} was {before[key]} and is {value}"
        for key, value in now.items()
        if key in before and before[key] != value
    )
