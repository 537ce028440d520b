"""Batches of pairs in an order that a resumed run repeats exactly."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.dataset import AudioTextDataset, Clip
from atr_moco_plugin.data.loading.batch import PairBatch, Tokenize, pad_waveforms
from atr_moco_plugin.data.loading.plan import (
    Batches,
    CaptionMode,
    Fetched,
    Schedule,
    max_samples,
    num_batches,
    unchanged,
)
from atr_moco_plugin.errors import InputError

_LOGGER = logging.getLogger(__name__)


def tolerated_clips(clips: int) -> int:
    """Unreadable clips that a split of so many is not stopped for: one in a thousand, at least 10.

    More are no accident of single files but a disk, a download or a folder that is gone.
    """
    return max(10, clips // 1_000)


def _let_go(loader: DataLoader[Fetched]) -> None:
    """Drop the last reference that the finalizer holds."""


class PairLoader(Iterator[PairBatch]):
    """Iterator over the batches of one epoch after another.

    ``next`` raises ``StopIteration`` at the end of an epoch until :meth:`reset` starts the next
    one; a new ``for`` loop over a finished epoch calls it itself.

    Args:
        dataset: where clips come from; it reads at the model's rate, see
            :meth:`~atr_moco_plugin.data.dataset.AudioTextDataset.read_with`.
        split: the split to read.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.
        batch_size: pairs a batch on this rank.
        max_seconds: longer clips are cropped to this.
        shuffle: ``True`` for training: a new order, new captions and random crops every epoch.
            ``False``: the split's order and every clip's beginning, the same in each epoch.
        seed: of the order, the captions drawn and the crops.
        rank: this process, in ``[0, world_size)``.
        world_size: processes that share the data; all get equally many batches of equal size.
        drop_last: leave an incomplete last batch out.
        num_workers: processes that decode ahead; 0 decodes in this one. The batches do not depend
            on it.
        prefetch: batches that each worker process decodes ahead.
        captions: ``"random"`` pairs each clip with one of its captions, drawn anew each epoch;
            ``"all"`` makes every (clip, caption) pair an example.
        max_bad: unreadable clips that are tolerated on this rank, ``None`` for
            :func:`tolerated_clips`. Each is named once in a warning and replaced by a following
            readable one of the order, so that batches keep their size.
        strict: stop at the first unreadable clip.
        pin_memory: put batches into page-locked memory, for faster copies to a GPU.
        augment: random changes of the waveforms, drawn anew each epoch; ``None`` makes none. They
            are part of the batch, so that online and momentum encoders see the same ones, as in
            ALBEF and BLIP.
        on_bad: called with the key of every unreadable clip and the reason, once for each.

    Raises:
        ValueError: if the split does not exist or gives no batch, an argument is out of range,
            ``augment`` is given without ``shuffle``, or the data set has not been told a rate.
    """

    def __init__(
        self,
        dataset: AudioTextDataset,
        split: str,
        tokenize: Tokenize,
        batch_size: int,
        *,
        max_seconds: float,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool,
        num_workers: int = 0,
        prefetch: int = 2,
        captions: CaptionMode = "random",
        max_bad: int | None = None,
        strict: bool = False,
        pin_memory: bool = False,
        augment: AugmentConfig | None = None,
        on_bad: Callable[[str, str], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank must be in [0, world_size={world_size}), not {rank}")
        if captions not in ("random", "all"):
            raise InputError(f"captions must be 'random' or 'all', not {captions!r}")
        if prefetch < 1:
            raise InputError(f"prefetch must be at least 1, not {prefetch}")
        if augment is not None and not shuffle:
            raise InputError("augment is for training; leave it out or set shuffle=True")
        if max_bad is None:
            max_bad = tolerated_clips(len(dataset.clips(split)))
        self._batches = Batches(
            dataset=dataset,
            split=split,
            tokenize=tokenize,
            batch_size=batch_size,
            max_samples=max_samples(max_seconds, dataset.sample_rate),
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            captions=captions,
            tolerated=0 if strict else max_bad,
            augment=augment,
        )
        size = self._batches.num_pairs
        self._length = num_batches(size, batch_size, world_size, drop_last=drop_last)
        if self._length == 0:
            raise InputError(
                f"{dataset.name}: split {split!r} has {size} examples and gives no batch of "
                f"{batch_size} on {world_size} ranks; use a smaller batch or drop_last=False"
            )
        # What an exact resume needs to be equal; the rank is left out, its state serves all ranks.
        self._settings: dict[str, Any] = {
            "fingerprint": dataset.fingerprint(),
            "split": split,
            "batch_size": batch_size,
            "sample_rate": dataset.sample_rate,
            "max_seconds": float(max_seconds),
            "shuffle": shuffle,
            "seed": seed,
            "world_size": world_size,
            "drop_last": drop_last,
            "captions": captions,
            "augment": None if augment is None else asdict(augment),
        }
        self._strict, self._max_bad, self._on_bad = strict, max_bad, on_bad
        self._epoch, self._position = 0, 0
        self._bad: dict[str, None] = {}
        self._schedule = Schedule()
        self._loader: DataLoader[Fetched] = DataLoader(
            self._batches,
            batch_size=None,
            sampler=self._schedule,
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers > 0 else None,
            collate_fn=unchanged,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # The torch loader draws a seed for its workers; a generator of its own keeps it from
            # moving the global one, which a resumed run would not repeat.
            generator=torch.Generator(),
        )
        self._fetching: Iterator[Fetched] | None = None
        # The finalizer's reference keeps the workers' owner out of any cycle that holds this object
        # (a caught exception is enough): freed as part of one, torch waits 5 s for every worker.
        weakref.finalize(self, _let_go, self._loader).atexit = False

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self._epoch

    @property
    def position(self) -> int:
        """Batches of the current epoch delivered so far; what is prefetched does not count."""
        return self._position

    @property
    def num_examples(self) -> int:
        """Pairs in an epoch, over all ranks, those of an incomplete last batch included."""
        return self._batches.num_pairs

    @property
    def bad_clips(self) -> list[str]:
        """Keys of the unreadable clips met so far, in the order they were met."""
        return list(self._bad)

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        return self._length

    def __iter__(self) -> PairLoader:
        if self._position == self._length:
            self.reset()
        return self

    def __next__(self) -> PairBatch:
        """The next batch of the epoch.

        Raises:
            StopIteration: at the end of the epoch.
            ValueError: if a clip is unreadable under ``strict``, or more than ``max_bad`` are.
        """
        if self._position == self._length:
            raise StopIteration
        if self._fetching is None:
            self._schedule.epoch = self._epoch
            self._schedule.start, self._schedule.stop = self._position, self._length
            self._fetching = iter(self._loader)
        fetched = next(self._fetching)
        self._note_bad(fetched)
        if fetched.batch is None:
            raise InputError(
                f"{self._name}: no readable clip is left for a batch; check its root folder"
            )
        self._position += 1
        if self._position == self._length:
            self._fetching = None
        return fetched.batch

    @property
    def _name(self) -> str:
        return f"{self._batches.dataset.name} split {self._batches.split!r}"

    def _note_bad(self, fetched: Fetched) -> None:
        for key, reason in fetched.bad:
            if self._strict:
                raise InputError(f"{self._name}: clip {key!r} cannot be used: {reason}")
            if key not in self._bad:
                self._bad[key] = None
                _LOGGER.warning("%s: clip %r is skipped: %s", self._name, key, reason)
                if self._on_bad is not None:
                    self._on_bad(key, reason)
            if len(self._bad) > self._max_bad:
                raise InputError(
                    f"{self._name}: {len(self._bad)} clips cannot be used, more than "
                    f"max_bad={self._max_bad}; the last is {key!r}: {reason}"
                )

    def reset(self) -> None:
        """Go to the beginning of the next epoch."""
        self._epoch += 1
        self._position = 0
        self._fetching = None

    def state_dict(self) -> dict[str, Any]:
        """Epoch, position, unreadable clips and the settings they hold for; plain Python values."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "bad": list(self._bad),
            "settings": dict(self._settings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the last batch that was delivered when ``state`` was taken.

        Raises:
            ValueError: if ``state`` is of other data or settings; the message names them.
        """
        # Every run before there was a choice was at 16 kHz.
        saved = {"sample_rate": 16_000, **state["settings"]}
        changed = [
            f"{name} was {saved.get(name)!r} and is {value!r}"
            for name, value in self._settings.items()
            if saved.get(name) != value
        ]
        if changed:
            raise InputError(
                f"{self._name}: the saved position does not fit: {'; '.join(changed)}; resume with "
                "the settings of the run or start a new one"
            )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._bad = dict.fromkeys(state["bad"])
        self._fetching = None


def iterate_audio(
    dataset: AudioTextDataset,
    clips: Sequence[Clip],
    batch_size: int,
    max_seconds: float,
    num_workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode clips in order for evaluation: the same samples each time, whatever the batch size.

    A clip is whole up to ``max_seconds``; a longer one keeps its first ``max_seconds``, and a
    shorter one is followed by zeros that its length leaves out, never repeated.

    Args:
        dataset: where clips come from, at its ``sample_rate``.
        clips: those to decode.
        batch_size: clips a batch.
        max_seconds: longest waveform.
        num_workers: threads that decode ahead, at most one batch and one clip each; 0 decodes when
            a batch is asked for. Threads do, since soundfile and soxr let others run meanwhile.

    Yields:
        ``(waveforms [B, samples] float32, lengths [B] int64)``; the last B may be smaller.

    Raises:
        FileNotFoundError, ValueError: if a clip cannot be read, in its turn: an evaluation skips
            nothing.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if num_workers < 0:
        raise InputError(f"num_workers must be at least 0, not {num_workers}")
    samples = max_samples(max_seconds, dataset.sample_rate)
    waveforms = _decode_ahead(dataset, clips, samples, batch_size, num_workers)
    while chosen := list(islice(waveforms, batch_size)):
        yield pad_waveforms(chosen)


def _decode_ahead(
    dataset: AudioTextDataset, clips: Sequence[Clip], samples: int, ahead: int, num_workers: int
) -> Iterator[NDArray[np.float32]]:
    """The beginning of each clip in order, with ``ahead`` clips and one a thread under way."""
    if num_workers == 0:
        yield from (dataset.load(clip, samples) for clip in clips)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    try:
        pending: deque[Future[NDArray[np.float32]]] = deque()
        for clip in clips:
            if len(pending) == ahead + num_workers:
                yield pending.popleft().result()
            pending.append(pool.submit(dataset.load, clip, samples))
        while pending:
            yield pending.popleft().result()
    finally:
        # Also where the caller stops early: nothing that has not begun is decoded any more.
        pool.shutdown(wait=True, cancel_futures=True)
