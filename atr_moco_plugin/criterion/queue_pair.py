"""The audio and the text queue of a criterion: row k of both belongs to the same item."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch

from atr_moco_plugin.criterion.config import MocoAtcConfig
from atr_moco_plugin.criterion.queue_start import QueueStart
from atr_moco_plugin.distributed import (
    ProcessesDifferError,
    broadcast_bool,
    process_index,
    processes_that_differ,
)
from atr_moco_plugin.queue import EmbeddingQueue
from atr_moco_plugin.rank.growth import growth_of_last_half

Queues = Mapping[str, EmbeddingQueue]
"""Modality to queue."""


def make_queue(config: MocoAtcConfig, dim: int) -> EmbeddingQueue:
    """An empty queue of the size that the options ask for."""
    if config.queue_size == "auto":
        return EmbeddingQueue(config.queue_min, dim, max_size=config.queue_max)
    return EmbeddingQueue(config.queue_size, dim)


def stale_copies(queues: Queues, pairs: int) -> str | None:
    """What to warn of where a queue is longer than an epoch, ``None`` where none is.

    Args:
        queues: of a criterion; may be empty.
        pairs: of an epoch, over all processes.
    """
    size = max((queue.size for queue in queues.values()), default=0)
    if size <= pairs:
        return None
    return (
        f"The queue has {size:,} rows, but an epoch has {pairs:,} pairs: it will hold stale copies "
        "of every item. Set `queue_size` to at most an epoch."
    )


def check_queues_agree(queues: Queues, steps: int) -> None:
    """Compare the queues of all processes to the last bit. Every process calls it.

    Args:
        queues: of the criterion.
        steps: optimizer steps of this job, for the message.

    Raises:
        ProcessesDifferError: on every process, where the queues differ.
    """
    found = {
        name: (*queue.valid, queue.second_ids[: len(queue)], queue.position)
        for name, queue in queues.items()
    }
    for name, processes in processes_that_differ(found).items():
        raise ProcessesDifferError(
            f"The {name} queue of process(es) {', '.join(map(str, processes))} differs from that "
            f"of process 0 after {steps} optimizer steps of this job, so the processes no longer "
            "train one model. The processes loaded different states, or something wrote into the "
            "queues of one, such as DDP's broadcast of buffers. Load the same state on every "
            "process, wrap the criterion with `broadcast_buffers=False`, and go on from a "
            "checkpoint saved before."
        )


def grow_queues(queues: Queues, limit: int, device: torch.device) -> None:
    """Double the queues where their older half is worth it, by the rule of
    :mod:`atr_moco_plugin.rank.growth`; where it is not, ask again when they have been rewritten.

    Args:
        queues: of one size.
        limit: rows that they grow to at most.
        device: where the process group exchanges tensors.
    """
    size = next(iter(queues.values())).size
    # The queues are equal on every process, but their singular values only up to rounding.
    worth_it = process_index() == 0 and any(
        growth_of_last_half(queue.newest(size // 2), queue.valid[0]).worth_it
        for queue in queues.values()
    )
    if broadcast_bool(worth_it, device):
        size = min(2 * size, limit)
    for queue in queues.values():
        queue.grow(size)


def clear_queues_of_other_data(queues: Queues, start: QueueStart, saved: int, present: int) -> None:
    """Empty queues whose rows are of another data set, with a warning.

    Args:
        queues: of the criterion.
        start: of the criterion, which knows nothing of empty queues.
        saved: fingerprint of the data that the rows are of, 0 if not known.
        present: fingerprint of the data that is trained on.
    """
    if saved in (0, present) or not any(len(queue) for queue in queues.values()):
        return
    start.reset_parameters()
    for queue in queues.values():
        queue.clear()
    warnings.warn(
        "The queues of the checkpoint hold embeddings of another data set, so they start empty.",
        stacklevel=2,
    )
