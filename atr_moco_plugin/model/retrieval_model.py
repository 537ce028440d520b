"""The online model: an audio tower, a text tower and a matching head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.pooling import MeanPooling, PoolingKind, build_pooling
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig, spec_augment
from atr_moco_plugin.plugins import load, load_complete
from atr_moco_plugin.sample_rate import check_sample_rate
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import unit_norm
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, TextTokens


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


class AudioTower(nn.Module):
    """Audio encoder, pooling and projection.

    In training mode SpecAugment masks the encoder's features. A momentum copy stays in eval mode
    and sees them whole: like dropout, masks would put noise into the queue and the soft targets.
    Changes of the waveforms reach both encoders, as in ALBEF and BLIP, where the two see one
    augmented image.

    Args:
        encoder: ``encoder(waveforms, lengths) -> AudioTokens`` with a ``width`` and a
            ``sample_rate``, the Hz of the waveforms that it takes. It may have
            ``features(waveforms, lengths)``, whose result it then takes for the waveforms; that is
            given lengths as they come, on the CPU from a batch, and the encoder itself has them on
            the device of the waveforms.
        embed_dim: size d of the embedding.
        pooling: ``mean``, ``attention`` or ``cls``.
        spec_augment: masks, or ``None``. They need features that are a named tuple with ``fbank``
            (``[B, frames, bins]``, normalised) and ``mask`` (``[B, T]`` bool, the valid tokens that
            the encoder makes of each row), as those of BEATs are.

    Raises:
        ValueError: if the encoder publishes no ``sample_rate``, or ``spec_augment`` is given and it
            has no ``features``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embed_dim: int,
        pooling: PoolingKind,
        spec_augment: SpecAugmentConfig | None = None,
    ) -> None:
        super().__init__()
        kind = type(encoder)
        check_sample_rate(
            getattr(encoder, "sample_rate", None),
            f"the audio encoder {kind.__module__}.{kind.__qualname__}",
        )
        if spec_augment is not None and not hasattr(encoder, "features"):
            raise InputError(
                f"`model.spec_augment` masks features, but {type(encoder).__name__} has no "
                "`features(waveforms, lengths)`; leave it out or take another audio encoder."
            )
        self.encoder = encoder
        self.pooling = build_pooling(pooling, encoder.width)
        self.projection = nn.Linear(encoder.width, embed_dim)
        self.spec_augment = spec_augment

    @not_compiled
    def prepare(self, waveforms: Tensor, lengths: Tensor | None = None) -> dict[str, Any]:
        """Arguments for :meth:`forward` that this tower and its momentum copy can share: features
        in place of waveforms where the encoder computes some without weights, and otherwise the
        lengths on the device of the waveforms."""
        if hasattr(self.encoder, "features"):
            return {"waveforms": _Features(self.encoder.features(waveforms, lengths))}
        if lengths is not None:
            lengths = to_device(lengths, waveforms.device)
        return {"waveforms": waveforms, "lengths": lengths}

    def forward(self, waveforms: Any, lengths: Tensor | None = None) -> tuple[Tensor, AudioTokens]:
        """``[B, samples]`` waveforms, or what :meth:`prepare` made of them -> ``[B, d]`` unit-norm
        float32 embeddings and the tokens."""
        inputs = {"waveforms": waveforms, "lengths": lengths}
        if isinstance(waveforms, Tensor):
            inputs = self.prepare(**inputs)
        if isinstance(features := inputs["waveforms"], _Features):
            features = features.of_encoder
            if self.training and self.spec_augment is not None:
                features = _masked(features, self.spec_augment)
            tokens = self.encoder(features)
        else:
            tokens = self.encoder(*inputs.values())
        return unit_norm(self.projection(self.pooling(*tokens))), tokens


class TextTower(nn.Module):
    """Text encoder, pooling and projection.

    Args:
        encoder: ``encoder(input_ids, mask) -> TextTokens`` with a ``width``.
        embed_dim: size d of the embedding.
        pooling: ``cls`` or ``mean``.
    """

    def __init__(self, encoder: nn.Module, embed_dim: int, pooling: Literal["cls", "mean"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = MeanPooling() if pooling == "mean" else _FirstToken()
        self.projection = nn.Linear(encoder.width, embed_dim)

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, TextTokens]:
        """``[B, L]`` ids and mask -> ``[B, d]`` unit-norm float32 embeddings and the tokens."""
        tokens = self.encoder(input_ids, mask)
        return unit_norm(self.projection(self.pooling(tokens.states, tokens.mask))), tokens


class RetrievalModel(nn.Module):
    """Two towers into one embedding space, and a head that scores pairs of token sequences.

    Args:
        audio: the audio tower.
        text: the text tower.
        head: ``head(text_encoder, text_tokens, audio_tokens) -> logits [P, 2]``.
    """

    def __init__(self, audio: AudioTower, text: TextTower, head: nn.Module) -> None:
        super().__init__()
        self.audio = audio
        self.text = text
        self.head = head
        self._frozen = [name for name, p in self.named_parameters() if not p.requires_grad]

    def freeze(self) -> None:
        """Freeze again what was frozen when the model was built, such as the classifier of a
        fine-tuned BEATs: a host that makes every parameter trainable calls it afterwards."""
        for name in self._frozen:
            self.get_parameter(name).requires_grad_(False)

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the audio encoder takes: data are read at this rate."""
        return self.audio.encoder.sample_rate

    @property
    def embed_dim(self) -> int:
        """Size d of the embeddings."""
        return self.audio.projection.out_features

    @property
    def shares_audio(self) -> bool:
        """Whether :meth:`match` takes ``audio_rows``, which is up to the head."""
        return getattr(self.head, "shares_audio", False)

    @property
    def needs_text_states(self) -> bool:
        """Whether :meth:`match` reads ``text.states``, which is up to the head; without they are
        ``None`` in training and evaluation."""
        return getattr(self.head, "needs_text_states", True)

    def match(
        self, text: TextTokens, audio: AudioTokens, audio_rows: Tensor | None = None
    ) -> Tensor:
        """Matching logits of P pairs, row by row.

        Args:
            text: P texts; their states may be ``None`` unless :attr:`needs_text_states`.
            audio: P audios.
            audio_rows: ``[P]`` int64, the row of ``audio`` of each pair, where pairs share audios;
                only where :attr:`shares_audio`.

        Returns:
            ``[P, 2]``, index 1 = the pair matches.
        """
        rows = () if audio_rows is None else (audio_rows,)
        return self.head(self.text.encoder, text, audio, *rows)


class _FirstToken(nn.Module):
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return states[:, 0]


class _Features(NamedTuple):
    """What an encoder's ``features`` made, which may be a tensor as waveforms are."""

    of_encoder: Any


def _masked(features: Any, config: SpecAugmentConfig) -> Any:
    """Features with masks over the frames that valid tokens cover."""
    if not all(hasattr(features, x) for x in ("fbank", "mask", "_replace")):
        raise InputError(
            "`model.spec_augment` needs features that are a named tuple with `fbank` and `mask`, "
            f"but the audio encoder's are a {type(features).__name__}: leave it out or take "
            "another audio encoder."
        )
    counts = features.mask.sum(dim=1)
    frames = -(-features.fbank.size(1) * counts // features.mask.size(1))
    return features._replace(fbank=spec_augment(features.fbank, frames, config))


def build_model(config: RetrievalModelConfig) -> RetrievalModel:
    """Build a model from named parts, each read through its entry point.

    Args:
        config: names and options. A part's options are checked by its own ``config_class``.

    Returns:
        The model, with pretrained weights where a part's options name some.

    Raises:
        ValueError: for an unknown part, an unknown option or a bad value, naming the key.
    """
    audio_class, audio_config = _part("audio_encoders", config.audio, "model.audio")
    text_class, text_config = _part("text_encoders", config.text, "model.text")
    head_class, head_config = _part("heads", config.head, "model.head")
    audio_encoder = audio_class.from_config(audio_config)
    text_encoder = text_class.from_config(text_config)
    # Before the text tower: an ALBEF head takes the upper layers out of the text encoder.
    head = head_class(text_encoder, audio_encoder.width, head_config)
    return RetrievalModel(
        AudioTower(audio_encoder, config.embed_dim, config.audio_pooling, config.spec_augment),
        TextTower(text_encoder, config.embed_dim, config.text_pooling),
        head,
    )


def model_config(values: Mapping[str, Any]) -> RetrievalModelConfig:
    """A :class:`RetrievalModelConfig` from a nested mapping, as read from YAML."""
    return build_config(RetrievalModelConfig, values, "model")


def built_config(config: RetrievalModelConfig, model: RetrievalModel) -> RetrievalModelConfig:
    """The configuration that builds the same architecture anew without any file: the sizes that
    came with pretrained weights are in it, and where the weights came from is not.

    Args:
        config: what ``model`` was built with.
        model: the model.
    """
    parts = {}
    for name, encoder in (("audio", model.audio.encoder), ("text", model.text.encoder)):
        part: PartConfig = getattr(config, name)
        own = getattr(encoder, "config", None)
        sizes = asdict(own) if is_dataclass(own) else part.config
        parts[name] = replace(part, config=without_weights(f"{name}_encoders", part.name, sizes))
    return replace(config, **parts)


def without_weights(group: str, name: str, options: Mapping[str, object]) -> dict[str, object]:
    """Options of an encoder without where its pretrained weights are.

    Args:
        group: ``audio_encoders`` or ``text_encoders``.
        name: the encoder's entry-point name.
        options: its options.
    """
    source = getattr(load(group, name), "weights_option", None)
    return {k: v for k, v in options.items() if source is None or k not in (source, "sha256")}


def _part(group: str, part: PartConfig, where: str) -> tuple[Any, Any]:
    """The class of a part and its checked options."""
    try:
        part_class = load_complete(group, part.name)
    except InputError as ex:
        raise InputError(f"`{where}.name`: {ex}") from ex
    return part_class, build_config(part_class.config_class, part.config, f"{where}.config")
