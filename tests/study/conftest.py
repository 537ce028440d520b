"""Run folders as the recipes leave them, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank import RankLogger

DIM = 32


def embeddings(n: int, directions: int, seed: int) -> torch.Tensor:
    x = torch.zeros(n, DIM)
    generator = torch.Generator().manual_seed(seed)
    x[:, :directions] = torch.randn(n, directions, generator=generator)
    return x / x.norm(dim=1, keepdim=True)


def write_run(
    folder: Path,
    size: int,
    seed: int,
    r_sum: float = 300.0,
    *,
    directions: int = 8,
    rows: int = 4_096,
    momentum: float = 0.95,
    train_pairs: int | None = 1_000,
    steps: int = 4,
    reranked: bool = False,
    auto: bool = False,
    keys: str | None = None,
    in_loss: int | None = None,
    fills: float = 1.0,
    warmup: int | str = "auto",
) -> Path:
    """A finished run whose queue saw ``rows`` vectors with ``directions`` directions; with ``auto``
    it grew to ``size``."""
    folder.mkdir(parents=True)
    chosen: int | str = "auto" if auto else size
    options: dict[str, object] = {"queue_size": chosen, "momentum": momentum, "positives": "clip"}
    if keys is not None:
        options["keys"] = keys
    if in_loss is not None:
        options["queue_warmup_steps"] = warmup
    config = {
        "criterion": {"name": "moco_atc", "config": options},
        "common": {"seed": seed},
        "dataset": {"valid_split": "valid"},
        "regime": {"num_steps": steps},
    }
    with (folder / "config.yaml").open("w") as file:
        YAML(typ="safe").dump(config, file)

    queues = {name: EmbeddingQueue(size, DIM) for name in ("audio", "text")}
    if size:
        logger = RankLogger(queues, folder / "rank.jsonl")
        for step in range(1, steps + 1):
            for i, queue in enumerate(queues.values()):
                x = embeddings(rows // steps, directions, 1_000 * seed + 10 * step + i)
                ids = torch.arange(len(x))
                queue.enqueue(x, ids, ids)
            logger.log(step)

    held_out = {"audio": embeddings(50, directions, seed), "text": embeddings(90, 20, seed)}
    chance = {"r_sum": 50.0}
    rank = RankLogger(held_out).log(0)
    splits = {
        name: {"dual": {"r_sum": r_sum - less}, "chance": chance, "rank": rank}
        for name, less in (("test", 20), ("valid", 0))
    }
    if reranked:
        for split in splits.values():
            split["reranked"] = {"r_sum": split["dual"]["r_sum"] + 7}
    result = {"splits": splits, "train_pairs": train_pairs, "seed": seed}
    (folder / "retrieval.json").write_text(json.dumps(result))
    if in_loss is not None:
        (folder / "metrics").mkdir()
        lines = [
            {"Step": step, "Queue Rows": float(in_loss), "Queue Fill": fill}
            for step, fill in ((1, fills), (steps, 1.0))
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics/train.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run
