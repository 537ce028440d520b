"""Sections of a fine-tuning's configuration that say what is read, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.loading.training import LoadingOptions


@dataclass(kw_only=True)
class ModelSection(Config):
    """The model that ``init=random`` makes, and what is changed of any other."""

    arch: str | None = None
    """``toy``, ``small`` or ``base``, for ``init=random``."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """Options of :class:`~atr_moco_plugin.model.RetrievalModelConfig`, such as ``audio.freeze``."""


@dataclass(kw_only=True)
class DatasetSection(LoadingOptions, Config):
    """The pairs, and how batches are made of them."""

    family: str = "folder"
    """Name of a data set; ``folder`` takes any folder of sounds."""

    config_overrides: dict[str, Any] = field(default_factory=dict)
    """The data set's own options, ``root`` above all."""

    batch_size: int | None = None
    """Pairs a batch on each process."""

    max_seconds: float | None = None
    """Longer clips are cropped in training, at random; shorter ones are padded and masked."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "batch_size", least=2)
        yield from in_range(self, "max_seconds", above=0)
        yield from self.loading_problems()


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
