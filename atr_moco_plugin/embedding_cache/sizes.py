"""How much a cache takes, said before it is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from atr_moco_plugin.errors import InputError

_SPARE = 64 * 2**20
"""Bytes that stay free."""


def in_words(num_bytes: float) -> str:
    """Bytes with three digits and a unit: ``1.52 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} TB"


def check_room(folder: Path, num_bytes: int) -> None:
    """Refuse a cache that the disk has no room for.

    Args:
        folder: where it goes; its nearest parent that is there is looked at.
        num_bytes: what is to be written.

    Raises:
        InputError: with both numbers.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if num_bytes + _SPARE > free:
        raise InputError(
            f"{folder}: the cached outputs take {in_words(num_bytes)} and the disk has "
            f"{in_words(free)} free: give `dataset.cache_embeddings` another disk, lower "
            "`dataset.cache_crops` or `dataset.max_seconds`, or take a criterion without a "
            "matching head, which needs no tokens"
        )
