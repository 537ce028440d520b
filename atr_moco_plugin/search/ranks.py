"""Several processes that fill one index: the first one plans and writes, all embed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from atr_moco_plugin.distributed import gather, gather_values, world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.embedding import Outcome
from atr_moco_plugin.search.plan import Task
from atr_moco_plugin.search.store import Embedded, Recording
from atr_moco_plugin.search.walk import Found

T = TypeVar("T")

_CPU = torch.device("cpu")


@contextmanager
def processes() -> Iterator[None]:
    """The group of processes that ``torchrun`` has started; nothing where it has not.

    Raises:
        InputError: where another process of the group has ended too early.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    # They wait for the one that has the longest recording; one that dies is noticed at once.
    with _quiet():
        dist.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        yield
    except RuntimeError as ex:
        if not _is_of_gloo(ex):
            raise
        raise InputError(
            "Another process of this run has ended; what is in the index stays, run the same "
            "command again to go on."
        ) from ex
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """What gloo prints goes to standard error: standard output is for the report."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _is_of_gloo(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistBackendError) or "gloo" in text or "onnection" in text


def local_device() -> str | None:
    """The GPU of this process where there are several processes and GPUs; else None."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


def share_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Hand the tasks of the first process to all."""
    if world_size() == 1:
        return list(tasks)
    values = gather_values([list(task) for task in tasks], _CPU)[0]
    return [Task(Found(*found), *rest) for found, *rest in values]


def collect(
    outcomes: Sequence[Outcome], embed_dim: int, *, stop: bool
) -> tuple[list[Outcome], bool]:
    """Outcomes of all processes, in process order, and whether one of them is to stop."""
    if world_size() == 1:
        return list(outcomes), stop
    rows = [x.embedded.embeddings for x in outcomes if x.embedded is not None]
    own = np.concatenate(rows) if rows else np.zeros((0, embed_dim), np.float32)
    embeddings = gather(torch.from_numpy(own)).numpy()
    parts = gather_values([stop, *map(_packed, outcomes)], _CPU)
    found, start = [], 0
    for _, *part in parts:
        for values in part:
            outcome = _unpacked(values, embeddings[start:])
            start += 0 if outcome.embedded is None else len(outcome.embedded.spans)
            found.append(outcome)
    return found, any(part[0] for part in parts)


def _packed(outcome: Outcome) -> list[Any]:
    embedded = outcome.embedded
    task = list(outcome.task)
    if embedded is None:
        return [task, None, [], outcome.same_but_newer, outcome.problem]
    return [task, asdict(embedded.recording), embedded.spans.tolist(), None, outcome.problem]


def _unpacked(values: Sequence[Any], embeddings: np.ndarray[Any, Any]) -> Outcome:
    (found, *rest), recording, spans, same_but_newer, problem = values
    task = Task(Found(*found), *rest)
    if recording is None:
        return Outcome(task, None, same_but_newer, problem)
    rows = np.ascontiguousarray(embeddings[: len(spans)])
    windows = np.array(spans, np.float64).reshape(-1, 2)
    return Outcome(task, Embedded(Recording(**recording), windows, rows), None, problem)
