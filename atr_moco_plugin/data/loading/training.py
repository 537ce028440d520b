"""The training batches of a run, as its configuration asks for them, whatever the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.loading.outputs import Outputs
from atr_moco_plugin.data.loading.plan import CaptionMode


class LoadingOptions(Protocol):
    """The section ``dataset`` of a configuration, as far as it decides what batches hold."""

    train_split: str
    captions: CaptionMode
    num_workers: int
    prefetch: int
    max_bad_clips: int | None
    augment: AugmentConfig | None
    bucket_by_length: int
    captions_per_clip: int
    mix: MixConfig | None


def training_loader(
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    options: LoadingOptions,
    *,
    batch_size: int,
    max_seconds: float,
    seed: int,
    process_index: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    outputs: Outputs | None = None,
    on_bad: Callable[[str, str], None] | None = None,
    note: Callable[[str], object],
) -> PairLoader:
    """Shuffled training batches of one process, all of one size.

    Args:
        dataset: the data set, at its sampling rate.
        to_tokens: the tokenizer.
        options: of the configuration.
        batch_size: pairs a batch on each process.
        max_seconds: longer clips are cropped at random.
        seed: of everything that is drawn.
        process_index: this process.
        world_size: processes that share the data.
        pin_memory: put batches into page-locked memory.
        outputs: what stands in for clips, captions or both.
        on_bad: called with the key of every unreadable clip and the reason.
        note: called with what there is to say of the batches.

    Raises:
        InputError: see :class:`~atr_moco_plugin.data.loading.loader.PairLoader`.
    """
    loader = PairLoader(
        dataset,
        options.train_split,
        to_tokens,
        batch_size,
        max_seconds=max_seconds,
        shuffle=True,
        seed=seed,
        process_index=process_index,
        world_size=world_size,
        drop_last=True,
        num_workers=options.num_workers,
        prefetch=options.prefetch,
        captions=options.captions,
        max_bad=options.max_bad_clips,
        pin_memory=pin_memory,
        augment=options.augment,
        bucket_by_length=options.bucket_by_length,
        outputs=outputs,
        captions_per_clip=options.captions_per_clip,
        mix=options.mix,
        on_bad=on_bad,
    )
    if loader.padding_note:
        note(loader.padding_note)
    return loader
