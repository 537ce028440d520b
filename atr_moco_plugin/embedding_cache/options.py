"""How outputs of frozen towers are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.ids import stable_digest


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Config):
    """Where outputs of frozen towers are kept, and how they are made."""

    folder: Path
    """Has a folder for the clips of each split, and one for its captions."""

    crops: int = 1
    """Crops of each clip: its beginning, and ``crops - 1`` drawn ones of a longer clip."""

    seed: int = 0
    """Of the drawn crops."""

    batch_size: int = 16
    """Clips or captions a forward pass."""

    num_workers: int = 0
    """Threads that decode ahead."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "crops", "batch_size", least=1)
        yield from in_range(self, "num_workers", least=0)

    def folder_of(self, what: str, split: str) -> Path:
        """The folder of ``clips`` or ``captions`` of a split, whatever its name has in it."""
        name = re.sub(r"[^\w.-]", "_", split, flags=re.ASCII)
        if name != split:
            name = f"{name}-{stable_digest('split', split):016x}"
        return self.folder / f"{what}-{name}"
