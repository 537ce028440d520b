"""Which pairs are in which batch, as pure functions of the settings, the epoch and the position.

So a run that stops and resumes, or decodes ahead with another number of workers, sees the same
batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest

CaptionMode = Literal["random", "all"]


@dataclass(frozen=True)
class BatchSettings:
    """Everything but the data set that decides what the batches of all processes hold.

    A saved position holds for equal settings alone, so they are part of it: the names of the fields
    are keys in checkpoints. The fields are arguments of
    :class:`~atr_moco_plugin.data.loading.loader.PairLoader`.

    Raises:
        InputError: if one is out of range, or ``augment`` is given without ``shuffle``.
    """

    split: str
    batch_size: int
    max_seconds: float
    shuffle: bool
    seed: int
    world_size: int
    drop_last: bool
    captions: CaptionMode
    augment: AugmentConfig | None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.captions not in get_args(CaptionMode):
            raise InputError(f"captions must be 'random' or 'all', not {self.captions!r}")
        if self.augment is not None and not self.shuffle:
            raise InputError("augment is for training; leave it out or set shuffle=True")


def max_samples(max_seconds: float, sample_rate: int) -> int:
    """``max_seconds`` in samples at ``sample_rate`` Hz, rounded.

    Raises:
        InputError: if it is not positive.
    """
    if not max_seconds > 0:
        raise InputError(f"max_seconds must be positive, not {max_seconds}")
    return max(1, round(max_seconds * sample_rate))


def epoch_order(size: int, *, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of ``size`` examples: a permutation drawn from (seed, epoch), or 0, 1, 2, ..."""
    if not shuffle:
        return np.arange(size)
    generator = torch.Generator().manual_seed(stable_digest("order", seed, epoch))
    order: NDArray[np.int64] = torch.randperm(size, generator=generator).numpy()
    return order


def num_batches(size: int, batch_size: int, world_size: int, *, drop_last: bool) -> int:
    """Batches an epoch on every process, for ``size`` examples in all."""
    step = batch_size * world_size
    return size // step if drop_last else -(-size // step)


def batch_positions(
    size: int, batch_size: int, process_index: int, world_size: int, index: int
) -> tuple[list[int], int]:
    """Which positions of the epoch's order are this process's batch ``index``.

    Batch ``index`` of all processes together is one run of ``batch_size * world_size`` positions,
    dealt out in turn. If the last run is incomplete, the first positions of the order are used
    again until every process has equally many.

    Returns:
        The positions, each in ``[0, size)``, and the position after the whole run.
    """
    start = index * batch_size * world_size
    stop = min(start + batch_size * world_size, size)
    rows = -(-(stop - start) // world_size)
    return [(start + process_index + row * world_size) % size for row in range(rows)], stop
