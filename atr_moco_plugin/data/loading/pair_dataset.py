"""Reading one batch of pairs, in whichever process torch's ``DataLoader`` asks for it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from atr_moco_plugin.data.audio.augment import augment
from atr_moco_plugin.data.audio.mix import MixConfig, join_captions, mix
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Example, PairBatch, Tokenize, collate
from atr_moco_plugin.data.loading.lengths import length_bins, seconds_in_batches
from atr_moco_plugin.data.loading.outputs import Outputs
from atr_moco_plugin.data.loading.plan import (
    BatchSettings,
    batch_positions,
    by_length,
    epoch_order,
    max_samples,
    padding,
)
from atr_moco_plugin.errors import ChangedError, InputError
from atr_moco_plugin.ids import stable_digest

_TRIES = 8
"""Clips that are drawn for a mixture, until one can be read and is of other captions."""

_NOTHING = np.zeros(0, np.float32)
"""The waveform of a clip whose outputs are there."""


class FetchedBatch(NamedTuple):
    """The result of reading one batch.

    Attributes:
        batch: ``None`` if too few readable clips were left to fill it.
        bad_clips: key and reason of each unreadable clip that was met.
    """

    batch: PairBatch | None
    bad_clips: list[tuple[str, str]]


class PairBatchDataset(Dataset[FetchedBatch]):
    """The batches of every epoch, by ``(epoch, index)``; copied into each worker process.

    Besides the order, the caption drawn for a clip, the crop, its augmentation and the substitute
    of an unreadable clip are pure functions of the data set, the settings, the epoch and the clip.

    Args:
        dataset: where clips come from.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.
        settings: what the batches hold.
        process_index: this process, in ``[0, settings.world_size)``.
        max_bad: unreadable clips passed over for one batch before it is given up.
        outputs: what stands in for clips, captions or both.
    """

    def __init__(
        self,
        dataset: AudioTextDataset,
        tokenize: Tokenize,
        settings: BatchSettings,
        process_index: int,
        max_bad: int,
        outputs: Outputs | None = None,
    ) -> None:
        self._dataset = dataset
        self._outputs = outputs
        self._tokenize = tokenize
        self._settings = settings
        self._process_index = process_index
        self._max_bad = max_bad
        self._max_samples = max_samples(settings.max_seconds, dataset.sample_rate)
        self._clips = clips = dataset.clips(settings.split)
        # The clip of each pair and which of its captions. Arrays and no lists of a million numbers,
        # for the reason of `ClipTable`.
        self._rows: Sequence[int] = range(len(clips))
        self._columns: array[int] | None = None  # None: drawn anew each epoch
        if settings.captions == "all":
            counts = array("q", (len(clip.captions) for clip in clips))
            self._rows = array("q", (row for row, n in enumerate(counts) for _ in range(n)))
            self._columns = array("q", (column for n in counts for column in range(n)))
        self._seconds: NDArray[np.float32] | None = None  # of each pair
        self._bins: NDArray[np.int64] | None = None  # of each clip
        if settings.bucket_by_length:
            seconds = seconds_in_batches(dataset, settings, outputs)
            self._bins = length_bins(seconds)
            self._seconds = seconds[np.asarray(self._rows, np.int64)]
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def num_pairs(self) -> int:
        """Pairs in an epoch, over all processes."""
        return len(self._rows) * self._settings.captions_per_clip

    @property
    def lengths(self) -> str | None:
        """A digest of what the pairs are sorted by; None where they are not."""
        if self._seconds is None:
            return None
        return hashlib.blake2b(length_bins(self._seconds).tobytes(), digest_size=8).hexdigest()

    def padding(self, epoch: int, *, bucketed: bool = True) -> float:
        """The share of an epoch's batches that is padding, by the lengths of the clips.

        Args:
            epoch: the epoch.
            bucketed: ``False``: as it would be without ``bucket_by_length``.

        Raises:
            ValueError: if ``bucket_by_length`` is off: nobody has asked for lengths.
        """
        if self._seconds is None:
            raise ValueError("padding is known with bucket_by_length alone")
        settings = self._settings
        order = self._order_of(epoch) if bucketed else self._drawn_order(epoch)
        return padding(order, self._seconds, settings.clips_per_batch, settings.world_size)

    def _drawn_order(self, epoch: int) -> NDArray[np.int64]:
        shuffle, seed = self._settings.shuffle, self._settings.seed
        return epoch_order(len(self._rows), shuffle=shuffle, seed=seed, epoch=epoch)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """The order of the epoch's pairs; the last one is kept."""
        if self._order is None or self._order[0] != epoch:
            order, settings = self._drawn_order(epoch), self._settings
            if self._seconds is not None:
                order = by_length(
                    order,
                    length_bins(self._seconds),
                    step=settings.clips_per_batch * settings.world_size,
                    steps=settings.bucket_by_length,
                    seed=settings.seed,
                    epoch=epoch,
                )
            self._order = (epoch, order)
        return self._order[1]

    def __getitem__(self, at: tuple[int, int]) -> FetchedBatch:
        """Read this process's batch ``(epoch, index)``."""
        epoch, index = at
        order = self._order_of(epoch)
        size, first = len(order), self._process_index
        settings = self._settings
        positions, after = batch_positions(
            size, settings.clips_per_batch, first, settings.world_size, index
        )
        # Substitutes come from after the run of all processes, and each process first takes its
        # own share of what is there, so that no clip comes twice.
        steps = chain(range(first, size, settings.world_size), range(size))
        substitutes = (order[(after + step) % size] for step in steps)
        examples: list[Example] = []
        bad: dict[str, str] = {}
        for position in positions:
            of_clip = self._first_readable(chain([order[position]], substitutes), epoch, bad)
            if of_clip is None:
                return FetchedBatch(None, list(bad.items()))
            examples += of_clip
        batch = collate(
            examples,
            self._tokenize,
            captions_per_clip=settings.captions_per_clip,
            mixed=settings.mix is not None,
        )
        if self._outputs is not None:
            batch = self._outputs.fill(batch, [example.outputs for example in examples])
        return FetchedBatch(batch, list(bad.items()))

    def _first_readable(
        self, pairs: Iterable[int], epoch: int, bad: dict[str, str]
    ) -> list[Example] | None:
        """The pairs of the first of ``pairs`` that can be read; clips that cannot are added to
        ``bad``."""
        for pair in pairs:
            row = self._rows[pair]
            clip = self._clips[row]
            column = None if self._columns is None else self._columns[pair]
            if clip.key in bad:
                continue
            try:
                return self._examples(row, column, epoch, bad)
            except ChangedError:
                raise
            # Errors that a file is to blame for. Any other is a bug of a reader or a decoder, which
            # would go unseen if the clip were skipped.
            except (OSError, InputError) as error:
                bad[clip.key] = str(error)
                if len(bad) > self._max_bad:
                    return None
        return None

    def _examples(
        self, row: int, column: int | None, epoch: int, bad: dict[str, str]
    ) -> list[Example]:
        """The pairs of a clip, which share its waveform."""
        settings, clip = self._settings, self._clips[row]
        columns = self._columns_of(clip, epoch) if column is None else [column]
        outputs = None
        if self._outputs is not None:
            crop = self._crop(epoch, clip, columns[0], settings.crops or 1)
            outputs = self._outputs.read(clip.key, clip.captions[columns[0]], crop)
        waveform = _NOTHING if settings.crops else self._waveform(clip, columns[0], epoch)
        clip_id, caption_ids = self._dataset.clip_id(clip), clip.caption_ids
        examples = [
            Example(waveform, clip.captions[i], clip_id, caption_ids[i], outputs) for i in columns
        ]
        if settings.mix is not None:
            return self._mixed(row, examples, columns[0], epoch, settings.mix, bad)
        return examples

    def _columns_of(self, clip: Clip, epoch: int) -> list[int]:
        """Which captions of a clip are drawn; where it has fewer than are asked for, some come
        twice."""
        settings, count = self._settings, len(clip.captions)
        # Without shuffling every pass is the same one.
        draw = epoch if settings.shuffle else 0
        if settings.captions_per_clip == 1:
            return [stable_digest("draw", settings.seed, draw, clip.key) % count]
        order = torch.randperm(count, generator=self._generator("draws", draw, clip, 0)).tolist()
        return [order[i % count] for i in range(settings.captions_per_clip)]

    def _mixed(
        self,
        own_row: int,
        examples: list[Example],
        column: int,
        epoch: int,
        config: MixConfig,
        bad: dict[str, str],
    ) -> list[Example]:
        """The pairs of a clip, in some of the cases with a second clip added to its sound."""
        clip = self._clips[own_row]
        generator = self._generator("mix", epoch, clip, column)
        chance, level, place, swap, wording = torch.rand(5, generator=generator).tolist()
        if chance >= config.probability:
            return examples
        of_clip = {*clip.caption_ids}
        for row in torch.randint(len(self._clips), (_TRIES,), generator=generator).tolist():
            other = self._clips[row]
            # Sorted by length, a clip stays as long as it is.
            if self._bins is not None and self._bins[row] > self._bins[own_row]:
                continue
            # Two clips that are said to sound alike are no mixture of two things.
            if other.key in bad or other.key == clip.key or of_clip & {*other.caption_ids}:
                continue
            columns = self._columns_of(other, epoch)
            try:
                second = self._waveform(other, columns[0], epoch)
            except (OSError, InputError) as error:
                bad[other.key] = str(error)
                continue
            sound = mix(examples[0].waveform, second, (2 * level - 1) * config.level_db, place)
            if sound is None:
                continue
            words = config.wordings[int(wording * len(config.wordings))]
            other_id, captions = self._dataset.clip_id(other), other.caption_ids
            mixed = []
            for example, i in zip(examples, columns, strict=True):
                one, two = example.caption, other.captions[i]
                one, two = (one, two) if swap < 0.5 else (two, one)
                caption = join_captions(one, two, words)
                second_ids = other_id, captions[i]
                mixed.append(example._replace(waveform=sound, caption=caption, second=second_ids))
            return mixed
        return examples

    def _waveform(self, clip: Clip, column: int, epoch: int) -> NDArray[np.float32]:
        settings = self._settings
        generator: torch.Generator | None = None
        if settings.shuffle:
            generator = self._generator("crop", epoch, clip, column)
        waveform = self._dataset.load(clip, self._max_samples, generator)
        if settings.augment is not None:
            changes = self._generator("augment", epoch, clip, column)
            waveform = augment(waveform, settings.augment, self._dataset.sample_rate, changes)
        return waveform

    def _crop(self, epoch: int, clip: Clip, column: int, crops: int) -> int:
        """Which of a clip's crops is taken: the first, its beginning, without shuffling."""
        if not self._settings.shuffle:
            return 0
        seed = self._settings.seed
        return stable_digest("which crop", seed, epoch, clip.key, column) % crops

    def _generator(self, what: str, epoch: int, clip: Clip, column: int) -> torch.Generator:
        seed = stable_digest(what, self._settings.seed, epoch, clip.key, column)
        return torch.Generator().manual_seed(seed)
