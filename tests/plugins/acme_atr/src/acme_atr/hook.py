from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from atr_moco_plugin.queue import EmbeddingQueue


class MeanLength:
    """How far each modality's embeddings lean to one side: 0 when they cancel out, 1 when all are
    the same."""

    def __init__(
        self, sources: Mapping[str, EmbeddingQueue], path: Path, *, every: int = 1
    ) -> None:
        self.sources = sources
        self.path = path
        self.every = every

    def log(self, step: int) -> dict[str, float] | None:
        rows = {name: queue.valid[0] for name, queue in self.sources.items() if len(queue)}
        if step % self.every or not rows:
            return None
        record = {name: x.mean(dim=0).norm().item() for name, x in rows.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **record}) + "\n")
        return record

    @staticmethod
    def scalars(record: Mapping[str, float]) -> dict[str, float]:
        return {f"{name}_mean_length": value for name, value in record.items()}
