"""Batches of pairs in an order that a resumed run repeats exactly."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.data import DataLoader

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.bad_clips import BadClips, tolerated_clips
from atr_moco_plugin.data.loading.batch import PairBatch, Tokenize
from atr_moco_plugin.data.loading.outputs import Outputs
from atr_moco_plugin.data.loading.pair_dataset import FetchedBatch, PairBatchDataset
from atr_moco_plugin.data.loading.plan import (
    BatchSettings,
    CaptionMode,
    num_batches,
    saved_settings,
)
from atr_moco_plugin.errors import InputError


class PairLoader(Iterator[PairBatch]):
    """Iterator over the batches of one epoch after another.

    ``next`` raises ``StopIteration`` at the end of an epoch until :meth:`reset` starts the next
    one; a new ``for`` loop over a finished epoch calls it itself.

    Reading is torch's ``DataLoader`` over a
    :class:`~atr_moco_plugin.data.loading.pair_dataset.PairBatchDataset`. This class adds the
    position, which counts the batches that were delivered and not those decoded ahead.

    Args:
        dataset: where clips come from; it reads at the model's rate, see
            :meth:`~atr_moco_plugin.data.dataset.AudioTextDataset.read_with`.
        split: the split to read.
        tokenize: ``list[str] -> (input_ids [B, L] int64, mask [B, L] bool)``.
        batch_size: pairs a batch on this process.
        max_seconds: longer clips are cropped to this.
        shuffle: ``True`` for training: a new order, new captions and random crops every epoch.
            ``False``: the split's order and every clip's beginning, the same in each epoch.
        seed: of the order, the captions drawn and the crops.
        process_index: this process, in ``[0, world_size)``.
        world_size: processes that share the data; all get equally many batches of equal size.
        drop_last: leave an incomplete last batch out.
        num_workers: worker processes that decode ahead; 0 decodes in this one. The batches do not
            depend on it.
        prefetch: batches that each worker decodes ahead.
        captions: ``"random"`` pairs each clip with one of its captions, drawn anew each epoch;
            ``"all"`` makes every (clip, caption) pair an example.
        max_bad: unreadable clips that this process puts up with, ``None`` for
            :func:`~atr_moco_plugin.data.loading.bad_clips.tolerated_clips`; 0 stops at the first.
            Each is named once in a warning and replaced by a following readable one of the order,
            so that batches keep their size.
        pin_memory: put batches into page-locked memory, for faster copies to a GPU.
        augment: random changes of the waveforms, drawn anew each epoch; ``None`` makes none. They
            are part of the batch, so that online and momentum encoders see the same ones, as in
            ALBEF and BLIP.
        bucket_by_length: steps whose pairs are sorted by length together, so that a batch is not
            padded to its one long clip, see :func:`~atr_moco_plugin.data.loading.plan.by_length`; 0
            leaves every batch to chance.
        outputs: what stands in for clips, captions or both, such as the outputs of frozen towers
            (:func:`~atr_moco_plugin.embedding_cache.towers.open_caches`); each epoch draws one of
            the crops that they have of a clip.
        captions_per_clip: pairs of each clip in a batch, with different captions: the batch has
            ``batch_size / captions_per_clip`` clips, which are encoded once. A clip with fewer
            captions has some twice.
        mix: add a second clip to some, drawn anew each epoch; ``None`` mixes none.
        on_bad: called with the key of every unreadable clip and the reason, once for each.

    Attributes:
        epoch: the current epoch, from 0.
        position: batches of the current epoch delivered so far.
        bad_clips: notes of the unreadable clips met so far.
        num_examples: pairs in an epoch, over all processes, those of an incomplete last batch too.

    Raises:
        InputError: if the split does not exist or gives no batch, an argument is out of range,
            ``augment`` or ``bucket_by_length`` is given without ``shuffle``, or ``dataset`` has no
            sampling rate yet, or clips whose lengths it needs and nobody knows.
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
        process_index: int = 0,
        world_size: int = 1,
        drop_last: bool,
        num_workers: int = 0,
        prefetch: int = 2,
        captions: CaptionMode = "random",
        max_bad: int | None = None,
        pin_memory: bool = False,
        augment: AugmentConfig | None = None,
        bucket_by_length: int = 0,
        captions_per_clip: int = 1,
        mix: MixConfig | None = None,
        outputs: Outputs | None = None,
        on_bad: Callable[[str, str], None] | None = None,
    ) -> None:
        if not 0 <= process_index < world_size:
            raise InputError(
                f"process_index must be in [0, world_size={world_size}), not {process_index}"
            )
        if prefetch < 1:
            raise InputError(f"prefetch must be at least 1, not {prefetch}")
        settings = BatchSettings(
            split=split,
            batch_size=batch_size,
            max_seconds=float(max_seconds),
            shuffle=shuffle,
            seed=seed,
            world_size=world_size,
            drop_last=drop_last,
            captions=captions,
            augment=augment,
            bucket_by_length=bucket_by_length,
            captions_per_clip=captions_per_clip,
            mix=mix,
            crops=None if outputs is None else outputs.crops,
        )
        self._name = f"{dataset.name} split {split!r}"
        if outputs is not None and (captions_per_clip > 1 or mix is not None):
            raise InputError(
                "captions_per_clip and mix make pairs that cached outputs do not have "
                "(cache_embeddings): leave one of the two out"
            )
        check_captions_per_clip(dataset, split, captions_per_clip)
        if max_bad is None:
            max_bad = tolerated_clips(len(dataset.clips(split)))
        self.bad_clips = BadClips(self._name, max_bad, on_bad)
        batches = PairBatchDataset(dataset, tokenize, settings, process_index, max_bad, outputs)
        self.epoch, self.position, self.num_examples = 0, 0, batches.num_pairs
        self._length = num_batches(self.num_examples, batch_size, world_size, drop_last=drop_last)
        if self._length == 0:
            raise InputError(
                f"{dataset.name}: split {split!r} has {self.num_examples} examples and gives no "
                f"batch of {batch_size} on {world_size} processes; use a smaller batch or "
                "drop_last=False"
            )
        # An exact resume needs these to be equal. One state serves all processes, so the index of
        # this one is left out.
        self._settings: dict[str, Any] = {
            "fingerprint": dataset.fingerprint(),
            "sample_rate": dataset.sample_rate,
            # Without tuples, which a state that is saved as JSON would not give back.
            **json.loads(json.dumps(asdict(settings))),
        }
        self._batches = batches
        if batches.lengths is not None:
            self._settings["lengths"] = batches.lengths
        # The sampler is the list of what is left of the epoch, filled in before each pass.
        self._remaining: list[tuple[int, int]] = []
        self._loader: DataLoader[FetchedBatch] = DataLoader(
            batches,
            batch_size=None,
            sampler=self._remaining,
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers > 0 else None,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # The torch loader draws a seed for its workers; a generator of its own keeps it from
            # moving the global one, which a resumed run would not repeat.
            generator=torch.Generator(),
        )
        self._fetching: Iterator[FetchedBatch] | None = None
        # If this object is freed as part of a reference cycle (a caught exception is enough), torch
        # waits 5 s for every worker. The finalizer holds the torch loader outside of the cycle and
        # drops it afterwards.
        weakref.finalize(self, _drop, self._loader).atexit = False

    def __len__(self) -> int:
        """Batches an epoch, the same on every process."""
        return self._length

    def __iter__(self) -> PairLoader:
        if self.position == self._length:
            self.reset()
        return self

    def __next__(self) -> PairBatch:
        """The next batch of the epoch.

        Raises:
            StopIteration: at the end of the epoch.
            InputError: if more than ``max_bad`` clips are unreadable.
        """
        if self.position == self._length:
            raise StopIteration
        if self._fetching is None:
            self._remaining[:] = [(self.epoch, k) for k in range(self.position, self._length)]
            self._fetching = iter(self._loader)
        batch, bad_clips = next(self._fetching)
        self.bad_clips.note(bad_clips)
        if batch is None:
            raise InputError(
                f"{self._name}: no readable clip is left for a batch; check its root folder"
            )
        self.position += 1
        if self.position == self._length:
            self._fetching = None
        return batch

    def reset(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch += 1
        self.position = 0
        self._fetching = None

    @property
    def padding_note(self) -> str:
        """What ``bucket_by_length`` saves in this epoch, in a sentence; empty where it is 0."""
        if self._batches.lengths is None:
            return ""
        before = self._batches.padding(self.epoch, bucketed=False)
        after = self._batches.padding(self.epoch)
        faster = (1 - after) / (1 - before)
        return (
            f"{self._name}: sorted by length, {after:.1%} of a batch are padding instead of "
            f"{before:.1%}: {faster:.2f} times as much sound in as many samples."
        )

    def state_dict(self) -> dict[str, Any]:
        """Epoch, position, unreadable clips and the settings they hold for; plain Python values."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "bad": list(self.bad_clips.keys),
            "settings": dict(self._settings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the last batch that was delivered when ``state`` was taken.

        Raises:
            InputError: if ``state`` belongs to other data or settings; the message names them.
        """
        # Every run before there was a choice was at 16 kHz.
        saved = {"sample_rate": 16_000, **saved_settings(state["settings"])}
        changed = [
            f"{name} was {saved.get(name)!r} and is {value!r}"
            for name, value in self._settings.items()
            if saved.get(name) != value
        ]
        if changed:
            raise InputError(
                f"{self._name}: the checkpoint's place in the data belongs to other settings "
                f"({'; '.join(changed)}); resume with the settings of the run or start a new one"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self.bad_clips.keys = dict.fromkeys(state["bad"])
        self._fetching = None


def check_captions_per_clip(dataset: AudioTextDataset, split: str, captions: int) -> None:
    """Refuse more captions a clip than any clip of a split has.

    Raises:
        InputError: naming both numbers.
    """
    if captions > 1:
        most = max((len(clip.captions) for clip in dataset.clips(split)), default=0)
        if captions > most:
            raise InputError(
                f"captions_per_clip is {captions}, but no clip of {dataset.name} split {split!r} "
                f"has more than {most} caption(s): lower it to {max(most, 1)}"
            )


def _drop(loader: DataLoader[FetchedBatch]) -> None:
    """Let go of the last reference to ``loader``, which ends its workers."""
