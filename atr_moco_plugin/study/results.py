"""What one run of a study found, read from the files it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.report.titles import TITLES
from atr_moco_plugin.study.plan import leaves, read_yaml

MODALITIES = ("audio", "text")


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        name: of its folder.
        queue_size: rows of its queues; at the end, where they grow.
        auto: whether they grow, by ``queue_size: auto``.
        seed: of the run.
        keys: which encoder makes the rows of the queue.
        momentum: EMA factor.
        positives: which items counted as positives.
        train_pairs: pairs of an epoch, None where the run did not say.
        r_sum: split name (the validation split first) to the R-sum of the dual encoder.
        reranked_r_sum: the same after re-ranking, empty without a matching head.
        chance: R-sum of chance on each split.
        queue: modality to the last record of its queue in ``rank.jsonl``, empty without queues.
        held_out: modality to the record of the embeddings of the validation split.
        history: ``(step, sources)`` of every record in ``rank.jsonl``.
        rows_in_loss: rows of the queue that were in the loss at the end, None where the run did not
            say, where all rows always are, and where the queue was still filling.
    """

    name: str
    queue_size: int
    auto: bool
    seed: int
    keys: str
    momentum: float
    positives: str
    train_pairs: int | None
    r_sum: Mapping[str, float]
    reranked_r_sum: Mapping[str, float]
    chance: Mapping[str, float]
    queue: Mapping[str, Mapping[str, Any]]
    held_out: Mapping[str, Mapping[str, Any]]
    history: tuple[tuple[int, Mapping[str, Any]], ...]
    rows_in_loss: int | None = None

    @property
    def variant(self) -> tuple[str, float, str]:
        """What is the same for all queue sizes of one comparison."""
        return self.keys, self.momentum, self.positives


def read_run(folder: Path) -> RunResult:
    """Read a run folder of any recipe of this package.

    Args:
        folder: with ``config.yaml``, ``retrieval.json`` and, where the criterion has queues,
            ``rank.jsonl``.

    Raises:
        InputError: when a file is missing or is not what a finished run with queues writes.
    """
    try:
        config = dict(leaves(read_yaml(folder / "config.yaml")))
        result = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
        path = folder / "rank.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        records = [json.loads(line) for line in lines]
        for split, reason in result.get("failed", {}).items():
            raise InputError(f"it has no figures on {split}: {reason}")
        splits = result["splits"]
        valid = config["dataset.valid_split"]
        splits = {valid: splits[valid], **splits}
        return RunResult(
            name=folder.name,
            queue_size=_rows(config["criterion.config.queue_size"], records),
            auto=config["criterion.config.queue_size"] == "auto",
            seed=config["common.seed"],
            keys=config.get("criterion.config.keys", "momentum"),
            momentum=config["criterion.config.momentum"],
            positives=config["criterion.config.positives"],
            train_pairs=result.get("train_pairs"),
            r_sum={name: split["dual"]["r_sum"] for name, split in splits.items()},
            reranked_r_sum={
                name: split["reranked"]["r_sum"]
                for name, split in splits.items()
                if "reranked" in split
            },
            chance={name: split["chance"]["r_sum"] for name, split in splits.items()},
            queue=records[-1]["sources"] if records else {},
            held_out=splits[valid]["rank"]["sources"],
            history=tuple((record["step"], record["sources"]) for record in records),
            rows_in_loss=_rows_in_loss(folder, config.get("criterion.config.queue_warmup_steps")),
        )
    except KeyError as ex:
        raise InputError(
            f"{folder} is not a finished run with queues: {ex} is not in its files."
        ) from ex
    except (OSError, ValueError) as ex:
        raise InputError(f"{folder} is not a finished run: {' '.join(str(ex).split())}") from ex


def _rows(size: object, records: Sequence[Mapping[str, Any]]) -> int:
    if isinstance(size, int):
        return size
    if not records:
        raise InputError(f"its queue_size is {size}, but rank.jsonl does not say what it became.")
    last = next(iter(records[-1]["sources"].values()))
    return int(last["queue_size"])


def _rows_in_loss(folder: Path, warmup: object) -> int | None:
    """As the last report of the training says, a mean over its steps. The queue must have been
    full in the one before, or the mean would be of a queue that is filling."""
    path = folder / "metrics" / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() and warmup != 0 else []
    if len(lines) < 2:
        return None
    before, last = (json.loads(line) for line in lines[-2:])
    rows = last.get(TITLES["queue_rows"])
    return None if rows is None or before.get(TITLES["queue_fill"], 1.0) < 1.0 else round(rows)
