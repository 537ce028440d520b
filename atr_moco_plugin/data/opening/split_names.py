"""What splits are called: here, and in the names of files and folders and in columns on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping

SPLITS = ("train", "valid", "test")
"""What splits are called in this package, in their order."""

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "development": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Names of splits on disk to the names in :data:`SPLITS`."""


def split_in_name(text: str) -> str | None:
    """The split in the name of a file or folder: ``"train"``, ``"valid"`` or ``"test"``.

    Args:
        text: such as ``val``, ``audiocaps_train`` or ``clotho_captions_evaluation``.

    Returns:
        ``None`` if the name has no split in it, or more than one.
    """
    words = re.split(r"[^a-z]+", text.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None
