"""Which pairs are in which batch, and how a batch is read.

What batch number k of epoch e holds is a pure function of the data set, the settings and the seed:
the order, the caption drawn for a clip, the crop, its augmentation and the substitute of an
unreadable clip. So a run that stops and resumes, or prefetches with another number of workers, sees
the same data.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from atr_moco_plugin.data.audio.augment import AugmentConfig, augment
from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loading.batch import Example, PairBatch, Tokenize, UnfinishedBatch
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest

CaptionMode = Literal["random", "all"]


def max_samples(max_seconds: float, sample_rate: int) -> int:
    """``max_seconds`` in samples at ``sample_rate`` Hz, rounded.

    Raises:
        ValueError: if it is not positive.
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
    """Batches an epoch on every rank, for ``size`` examples in all."""
    step = batch_size * world_size
    return size // step if drop_last else -(-size // step)


def batch_positions(
    size: int, batch_size: int, rank: int, world_size: int, index: int
) -> tuple[list[int], int]:
    """Which positions of the epoch's order are this rank's batch ``index``.

    Batch ``index`` of all ranks together is one run of ``batch_size * world_size`` positions, dealt
    out in turn. In a last, incomplete run the first positions of the order are used again until
    every rank has equally many.

    Returns:
        The positions, each in ``[0, size)``, and the position after the whole run.
    """
    start = index * batch_size * world_size
    stop = min(start + batch_size * world_size, size)
    rows = -(-(stop - start) // world_size)
    return [(start + rank + row * world_size) % size for row in range(rows)], stop


@dataclass(frozen=True)
class Fetched:
    """What reading one batch gave.

    Attributes:
        batch: ``None`` where too few readable clips were left to fill it.
        bad: key and reason of each unreadable clip met on the way.
    """

    batch: PairBatch | None
    bad: tuple[tuple[str, str], ...]

    def pin_memory(self) -> Fetched:
        """Pin the batch, in place; returns this object, as torch's loader asks."""
        if self.batch is not None:
            self.batch.pin_memory()
        return self


@dataclass
class Batches(Dataset[Fetched]):
    """The batches of every epoch, by ``(epoch, index)``; copied into each worker process.

    Attributes are the arguments of :class:`~atr_moco_plugin.data.loading.loader.PairLoader`; ``tolerated``
    is the most unreadable clips passed over for one batch before it is given up.
    """

    dataset: AudioTextDataset
    split: str
    tokenize: Tokenize
    batch_size: int
    max_samples: int
    shuffle: bool
    seed: int
    rank: int
    world_size: int
    captions: CaptionMode
    tolerated: int
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        clips = self.dataset.clips(self.split)
        # The clip of each pair and which of its captions. Arrays and no lists of a million numbers,
        # for the reason of `ClipTable`.
        self._rows: Sequence[int] = range(len(clips))
        self._columns: array[int] | None = None  # None: drawn anew each epoch
        if self.captions == "all":
            counts = array("q", (len(clip.captions) for clip in clips))
            self._rows = array("q", (row for row, n in enumerate(counts) for _ in range(n)))
            self._columns = array("q", (column for n in counts for column in range(n)))
        self._clips = clips
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def num_pairs(self) -> int:
        """Pairs in an epoch, over all ranks."""
        return len(self._rows)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the epoch's pairs; that of the last epoch asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(self.num_pairs, shuffle=self.shuffle, seed=self.seed, epoch=epoch)
            self._order = (epoch, order)
        return self._order[1]

    def __getitem__(self, at: tuple[int, int]) -> Fetched:
        """Read this rank's batch ``(epoch, index)``."""
        epoch, index = at
        order = self.order(epoch)
        size = len(order)
        positions, after = batch_positions(size, self.batch_size, self.rank, self.world_size, index)
        batch = UnfinishedBatch(len(positions), self.max_samples)
        bad: dict[str, str] = {}
        # Substitutes come from behind the run of all ranks, so that they double none of its clips.
        substitutes = (order[(after + self.rank + step) % size] for step in range(size))
        for position in positions:
            example = self._first_readable(chain([order[position]], substitutes), epoch, bad)
            if example is None:
                return Fetched(None, tuple(bad.items()))
            batch.add(example)
        return Fetched(batch.finish(self.tokenize), tuple(bad.items()))

    def _first_readable(
        self, pairs: Iterable[int], epoch: int, bad: dict[str, str]
    ) -> Example | None:
        """The first of ``pairs`` that can be read; what cannot is added to ``bad``."""
        for pair in pairs:
            clip = self._clips[self._rows[pair]]
            column = None if self._columns is None else self._columns[pair]
            if clip.key in bad:
                continue
            try:
                return self._example(clip, column, epoch)
            # What a file is to blame for. Anything else is a bug, of a reader or a decoder, that would
            # go unseen if each clip it meets were skipped.
            except (OSError, InputError) as error:
                bad[clip.key] = str(error)
                if len(bad) > self.tolerated:
                    return None
        return None

    def _example(self, clip: Clip, column: int | None, epoch: int) -> Example:
        # Without shuffling every pass is the same one.
        draw = epoch if self.shuffle else 0
        if column is None:
            column = stable_digest("draw", self.seed, draw, clip.key) % len(clip.captions)
        generator: torch.Generator | None = None
        if self.shuffle:
            generator = self._generator("crop", epoch, clip, column)
        waveform = self.dataset.load(clip, self.max_samples, generator)
        if self.augment is not None:
            changes = self._generator("augment", epoch, clip, column)
            waveform = augment(waveform, self.augment, self.dataset.sample_rate, changes)
        return Example(
            waveform=waveform,
            caption=clip.captions[column],
            clip_id=self.dataset.clip_id(clip),
            caption_id=clip.caption_ids[column],
        )

    def _generator(self, what: str, epoch: int, clip: Clip, column: int) -> torch.Generator:
        seed = stable_digest(what, self.seed, epoch, clip.key, column)
        return torch.Generator().manual_seed(seed)


class Schedule(Sampler[tuple[int, int]]):
    """The batches still to fetch in an epoch; read each time the torch loader starts over."""

    def __init__(self) -> None:
        self.epoch, self.start, self.stop = 0, 0, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in range(self.start, self.stop)])


def unchanged(fetched: Any) -> Any:
    """The collate function for batches that are already made; picklable, unlike a lambda."""
    return fetched
