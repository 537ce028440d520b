"""Options of a retrieval model: its parts by their names, and its sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.freezing import check_freeze
from atr_moco_plugin.model.patch_dropout import PatchDropoutConfig
from atr_moco_plugin.model.pooling import PoolingKind
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig


@dataclass(kw_only=True)
class PartConfig:
    """A part by its entry-point name, with its own options."""

    name: str
    config: dict[str, object] = field(default_factory=dict)


@dataclass(kw_only=True)
class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2022, arXiv:2106.09685) in place of an encoder's weights."""

    rank: int = 8
    """Rank r of an adapter."""

    alpha: float = 16.0
    """The adapter's output is scaled by ``alpha / rank``."""

    dropout: float = 0.0
    """Dropout of an adapter's input."""

    targets: list[str] | None = None
    """Names of the linear layers that get one; ``None``: the encoder's attention projections."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "rank", least=1)
        yield from in_range(self, "alpha", above=0)
        yield from in_range(self, "dropout", least=0, below=1)
        if self.targets is not None and not self.targets:
            yield "`targets` is empty: name the layers, or leave it out for the attention's."


@dataclass(kw_only=True)
class AdapterConfig(Config):
    """Small weights that train in place of an encoder's own."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters."""


@dataclass(kw_only=True)
class EncoderConfig(PartConfig, Config):
    """An encoder by its entry-point name, with its own options and what of it trains."""

    freeze: Literal["none", "all"] | int = "none"
    """``none``, ``all``, or the number of lowest layers that stand still, with all that comes
    before them. Pooling, projection and head train in any case."""

    adapter: AdapterConfig | None = None
    """Train adapters in place of the encoder's own weights; ``None`` for none."""

    def problems(self) -> Iterator[str]:
        try:
            check_freeze(self.freeze, "freeze")
        except InputError as ex:
            yield str(ex)
        if self.freeze == "all" and self.adapter is not None:
            yield (
                "`freeze` is all, but `adapter` is set: adapters freeze the encoder's own weights "
                "themselves, so leave `freeze` out, or set it to the number of lowest layers that "
                "get none."
            )


@dataclass(kw_only=True)
class RetrievalModelConfig(Config):
    """Parts and sizes of a :class:`RetrievalModel`."""

    audio: EncoderConfig = field(default_factory=lambda: EncoderConfig(name="beats"))
    """Audio encoder (group ``atr_moco_plugin.audio_encoders``)."""

    text: EncoderConfig = field(default_factory=lambda: EncoderConfig(name="bert"))
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

    patch_dropout: PatchDropoutConfig | None = None
    """Audio tokens that the encoder's layers do not see in training; None drops none."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "embed_dim", least=1)

    def without_adapters(self) -> RetrievalModelConfig:
        """The same model with plain layers, as after
        :func:`~atr_moco_plugin.model.merge_adapters`."""
        audio, text = (replace(part, adapter=None) for part in (self.audio, self.text))
        return replace(self, audio=audio, text=text)


def model_config(values: Mapping[str, Any]) -> RetrievalModelConfig:
    """A :class:`RetrievalModelConfig` from a nested mapping, as read from YAML."""
    return build_config(RetrievalModelConfig, values, "model")
