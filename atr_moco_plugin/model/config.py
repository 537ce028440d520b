"""Options of a retrieval model: its parts by their names, and its sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.model.pooling import PoolingKind
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig


@dataclass(kw_only=True)
class PartConfig:
    """A part by its entry-point name, with its own options."""

    name: str
    config: dict[str, object] = field(default_factory=dict)


@dataclass(kw_only=True)
class RetrievalModelConfig(Config):
    """Parts and sizes of a :class:`RetrievalModel`."""

    audio: PartConfig = field(default_factory=lambda: PartConfig(name="beats"))
    """Audio encoder (group ``atr_moco_plugin.audio_encoders``)."""

    text: PartConfig = field(default_factory=lambda: PartConfig(name="bert"))
    """Text encoder (group ``atr_moco_plugin.text_encoders``)."""

    head: PartConfig = field(default_factory=lambda: PartConfig(name="atm"))
    """Matching head (group ``atr_moco_plugin.heads``)."""

    embed_dim: int = 256
    """Size d of the shared embedding space (ALBEF, BLIP)."""

    audio_pooling: PoolingKind = "mean"
    """How audio tokens become one vector."""

    text_pooling: Literal["cls", "mean"] = "cls"
    """How text tokens become one vector: the CLS state (BLIP) or the mean."""

    spec_augment: SpecAugmentConfig | None = None
    """Masks over the audio features in training; None makes none."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "embed_dim", least=1)


def model_config(values: Mapping[str, Any]) -> RetrievalModelConfig:
    """A :class:`RetrievalModelConfig` from a nested mapping, as read from YAML."""
    return build_config(RetrievalModelConfig, values, "model")
