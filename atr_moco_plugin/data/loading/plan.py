"""Which pairs are in which batch, as pure functions of the settings, the epoch and the position.

So a run that stops and resumes, or decodes ahead with another number of workers, sees the same
batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest

CaptionMode = Literal["random", "all"]


@dataclass(frozen=True)
class BatchSettings:
    """Everything but the data set that decides what the batches of all processes hold.

    A saved position holds for equal settings alone, so they are part of it: the names of the fields
    are keys in checkpoints. The fields are arguments of
    :class:`~atr_moco_plugin.data.loading.loader.PairLoader`.

    New fields have the default that leaves batches as they were, which the checkpoints of before
    stand for: :func:`saved_settings`.

    Raises:
        InputError: if one is out of range, two do not go together, or one that is for training is
            given without ``shuffle``.
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
    bucket_by_length: int = 0
    crops: int | None = None
    captions_per_clip: int = 1
    mix: MixConfig | None = None

    @property
    def clips_per_batch(self) -> int:
        """Clips of a batch, each in as many pairs as it has captions there."""
        return self.batch_size // self.captions_per_clip

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.captions not in get_args(CaptionMode):
            raise InputError(f"captions must be 'random' or 'all', not {self.captions!r}")
        if self.augment is not None and not self.shuffle:
            raise InputError("augment is for training; leave it out or set shuffle=True")
        if self.augment is not None and self.crops is not None:
            raise InputError(
                "augment changes waveforms, but the batches hold outputs of an encoder in their "
                "place (cache_embeddings): leave one of the two out"
            )
        if self.bucket_by_length < 0:
            raise InputError(f"bucket_by_length must be at least 0, not {self.bucket_by_length}")
        if self.bucket_by_length and not self.shuffle:
            raise InputError("bucket_by_length is for training; leave it out or set shuffle=True")
        if self.captions_per_clip < 1:
            raise InputError(f"captions_per_clip must be at least 1, not {self.captions_per_clip}")
        if self.batch_size % self.captions_per_clip:
            raise InputError(
                f"captions_per_clip is {self.captions_per_clip}, which does not divide batch_size, "
                f"{self.batch_size}: a batch has whole clips; set batch_size to "
                f"{-(-self.batch_size // self.captions_per_clip) * self.captions_per_clip}"
            )
        if self.captions_per_clip > 1 and self.captions == "all":
            raise InputError(
                f"captions_per_clip is {self.captions_per_clip}, but captions is 'all', where "
                "every pair has its turn: set captions to 'random', or captions_per_clip to 1"
            )
        if self.mix is not None and not self.shuffle:
            raise InputError("mix is for training; leave it out or set shuffle=True")
        if self.crops is not None and (self.captions_per_clip > 1 or self.mix is not None):
            raise InputError(
                "captions_per_clip and mix need waveforms, but the batches hold outputs of an "
                "encoder in their place (cache_embeddings): leave one of the two out"
            )


def saved_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint, with the defaults of the fields that it is older than."""
    later = {x.name: x.default for x in fields(BatchSettings) if x.default is not MISSING}
    return {**later, **saved}


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


def by_length(
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    step: int,
    steps: int,
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """Reorder an epoch so that the examples of a step are about equally long.

    ``steps`` steps at a time are sorted by length. Then the order of all steps is drawn anew, so
    that an epoch does not go from short clips to long ones. Which examples are sorted together, and
    which of equal length come into one step, follows ``order``. The examples of an incomplete last
    step stay where they are: they are any, and not the longest.

    Args:
        order: a permutation of all examples.
        lengths: ``[examples]``, the length of each example in steps of any size.
        step: examples that all processes take together.
        steps: steps that are sorted together, at least 1; more of them leave less padding and make
            batches less random.
        seed: of the order of the steps, with ``epoch``.
        epoch: the epoch.
    """
    whole = len(order) // step * step
    windows = np.split(order[:whole], range(step * steps, whole, step * steps))
    ordered = [window[np.argsort(lengths[window], kind="stable")] for window in windows]
    generator = torch.Generator().manual_seed(stable_digest("steps", seed, epoch))
    drawn = torch.randperm(whole // step, generator=generator).numpy()
    shuffled: NDArray[np.int64] = np.concatenate(ordered).reshape(-1, step)[drawn].ravel()
    return np.concatenate([shuffled, order[whole:]])


def padding(
    order: NDArray[np.int64], seconds: NDArray[np.float32], batch_size: int, world_size: int
) -> float:
    """The share of an epoch's padded batches that is padding, over all processes.

    Args:
        order: of the epoch's examples.
        seconds: how long each example is, once it is cropped.
        batch_size: as in :class:`BatchSettings`.
        world_size: as in :class:`BatchSettings`.

    Returns:
        From 0 to 1. An incomplete last step is left out; 0 where there is no other.
    """
    step = batch_size * world_size
    dealt = seconds[order[: len(order) // step * step]].reshape(-1, batch_size, world_size)
    if not dealt.size:
        return 0.0
    padded = dealt.max(axis=1).sum(dtype=np.float64) * batch_size
    return float(1 - dealt.sum(dtype=np.float64) / padded)


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
