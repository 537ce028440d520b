"""Sections of a fine-tuning's configuration that say what is read, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.audio.augment import AugmentConfig
from atr_moco_plugin.data.audio.mix import MixConfig
from atr_moco_plugin.embedding_cache.options import crops_without_folder


@dataclass(kw_only=True)
class ModelSection(Config):
    """The model that ``init=random`` makes, and what is changed of any other."""

    arch: str | None = None
    """``toy``, ``small`` or ``base``, for ``init=random``."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """Options of :class:`~atr_moco_plugin.model.RetrievalModelConfig`, such as ``audio.freeze``."""


@dataclass(kw_only=True)
class DatasetSection(Config):
    """The pairs, and how batches are made of them."""

    family: str = "folder"
    """Name of a data set; ``folder`` takes any folder of sounds."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """The data set's own options, ``root`` above all."""

    batch_size: int | None = None
    """Pairs a batch on each process."""

    max_seconds: float | None = None
    """Longer clips are cropped in training, at random; shorter ones are padded and masked."""

    captions: Literal["random", "all"] = "random"
    """What an epoch is: every clip once with a random one of its captions, or every pair."""

    num_workers: int = 0
    """Workers that decode audio; 0 decodes between the steps."""

    prefetch: int = 2
    """Batches that each of them has ready."""

    decoder: Literal["soundfile", "torchcodec"] = "soundfile"
    """What decodes audio files."""

    cache_dir: Path | None = None
    """Folder for decoded audio; None decodes every time."""

    cache_embeddings: Path | None = None
    """Folder for the outputs of frozen encoders, which batches hold in place of audio and captions
    from then on; None encodes in every step."""

    cache_crops: int = 1
    """Crops of each training clip that it keeps: the beginning, and drawn ones of a longer clip."""

    bucket_by_length: int = 0
    """Steps whose pairs are sorted by length together; 0 leaves batches to chance."""

    augment: AugmentConfig | None = None
    """Random changes of training waveforms."""

    captions_per_clip: int = 1
    """Captions of each clip in a batch of training; the clip is encoded once for them, so that
    ``batch_size`` pairs are of ``batch_size / captions_per_clip`` clips."""

    mix: MixConfig | None = None
    """Add a second clip to some training clips and join their captions."""

    max_bad_clips: int | None = None
    """Unreadable clips that are skipped; None takes one in a thousand, at least 10."""

    train_split: str = "train"
    """Split to train on."""

    valid_split: str = "valid"
    """Split the best checkpoint is chosen on."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "batch_size", least=2)
        yield from in_range(self, "max_seconds", above=0)
        yield from in_range(self, "num_workers", "max_bad_clips", "bucket_by_length", least=0)
        yield from in_range(self, "prefetch", "cache_crops", least=1)
        yield from crops_without_folder(self)


@dataclass(kw_only=True)
class TokenizerSection(Config):
    """Where caption tokens come from."""

    name: str | None = None
    """A Hugging Face name, a folder or a package; None takes that of ``init``, of the text
    encoder's weights, or else trains one on the captions."""

    vocab_size: int = 512
    """Size of a vocabulary that is trained here."""

    max_tokens: int | None = None
    """Longer captions are cut."""

    allow_unknown: bool = False
    """Go on where more than half of the captions are ``[UNK]`` alone to the tokenizer."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "max_tokens", least=3)
