"""The training batches of a run, as its configuration asks for them, whatever the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atr_moco_plugin.config import in_range
from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import PairBatch, Tokenize
from atr_moco_plugin.data.loading.loader import PairLoader
from atr_moco_plugin.data.loading.outputs import Outputs
from atr_moco_plugin.data.loading.plan import CaptionMode


@dataclass(kw_only=True)
class LoadingOptions:
    """How batches are made: the part of the section ``dataset`` that every loop's configuration
    has."""

    captions: CaptionMode = "random"
    """What an epoch is: every clip once with a random one of its captions, or every pair."""

    num_workers: int = 0
    """Workers that decode audio for each process; 0 decodes between the steps. An evaluation has as
    many threads."""

    prefetch: int = 2
    """Batches that each of them has ready."""

    decoder: Literal["soundfile", "torchcodec"] = "soundfile"
    """What decodes audio files; torchcodec needs FFmpeg's libraries."""

    cache_dir: Path | None = None
    """Folder for decoded audio, shared by all processes and runs; None decodes every time."""

    cache_embeddings: Path | None = None
    """Folder for the outputs of frozen encoders, which batches hold in place of audio and captions
    from then on; None encodes in every step."""

    cache_crops: int = 1
    """Crops of each training clip that it keeps: the beginning, and drawn ones of a longer clip."""

    bucket_by_length: int = 0
    """Steps whose pairs are sorted by length together, so that a batch is not padded to its one
    long clip; 0 leaves batches to chance. 20 to 50 are usual."""

    augment: AugmentConfig | None = None
    """Random changes of training waveforms."""

    captions_per_clip: int = 1
    """Captions of each clip in a batch of training; the clip is encoded once for them, so that
    ``batch_size`` pairs are of ``batch_size / captions_per_clip`` clips."""

    mix: MixConfig | None = None
    """Add a second clip to some training clips and join their captions."""

    max_bad_clips: int | None = None
    """Unreadable training clips that each process skips, naming each once in a warning, and clips
    of a split that its evaluations leave out; one more stops the run. None takes one in a thousand
    clips of the split, at least 10."""

    train_split: str = "train"
    """Split to train on."""

    valid_split: str = "valid"
    """Split the best checkpoint is chosen on."""

    def loading_problems(self) -> Iterator[str]:
        """What is wrong with these options, a sentence each."""
        yield from in_range(self, "num_workers", "max_bad_clips", "bucket_by_length", least=0)
        yield from in_range(self, "prefetch", "cache_crops", least=1)
        if self.cache_crops > 1 and self.cache_embeddings is None:
            yield (
                f"`cache_crops` is {self.cache_crops}, but nothing is cached: set "
                "`cache_embeddings` to a folder, or leave it out."
            )
        if self.augment is not None and not self.augment.changes:
            yield (
                "`augment` changes nothing: set `gain_db`, `noise_probability`, `shift_seconds` or "
                "`invert_probability` above 0, or leave it out."
            )


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


def first_pairs(
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    options: LoadingOptions,
    pairs: int,
    *,
    max_seconds: float,
    outputs: Outputs | None = None,
) -> PairBatch:
    """The first pairs of the training split, of its first clips and their beginnings: the same ones
    at each call, whatever has been drawn.

    Args:
        dataset: the data set, at its sampling rate.
        to_tokens: the tokenizer.
        options: of the configuration.
        pairs: how many; a smaller split gives all it has.
        max_seconds: of a longer clip the beginning is taken.
        outputs: what stands in for clips, captions or both.

    Raises:
        InputError: see :class:`~atr_moco_plugin.data.loading.loader.PairLoader`.
    """
    loader = PairLoader(
        dataset,
        options.train_split,
        to_tokens,
        pairs,
        max_seconds=max_seconds,
        shuffle=False,
        seed=0,
        drop_last=False,
        max_bad=options.max_bad_clips,
        outputs=outputs,
    )
    return next(loader)
