"""The two towers of a retrieval model: encoder, pooling and projection."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from atr_moco_plugin.contracts import AudioEncoder, TextEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.pooling import MeanPooling, PoolingKind, build_pooling
from atr_moco_plugin.model.spec_augment import SpecAugmentConfig, spec_augment
from atr_moco_plugin.sample_rate import check_sample_rate
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.float32 import unit_norm
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, TextTokens


class AudioTower(nn.Module):
    """Audio encoder, pooling and projection.

    In training mode SpecAugment masks the encoder's features. A momentum copy stays in eval mode
    and sees them whole: like dropout, masks would put noise into the queue and the soft targets.
    Changes of the waveforms reach both encoders, as in ALBEF and BLIP, where the two see one
    augmented image.

    Args:
        encoder: see :class:`~atr_moco_plugin.contracts.AudioEncoder`. Its ``features``, if it has
            any, gets lengths as they come, on the CPU from a batch; the encoder itself gets them on
            the device of the waveforms.
        embed_dim: size d of the embedding.
        pooling: ``mean``, ``attention`` or ``cls``.
        spec_augment: masks, or ``None``. They need features that are a named tuple with ``fbank``
            (``[B, frames, bins]``, normalised) and ``mask`` (``[B, T]`` bool, the valid tokens that
            the encoder makes of each row), as those of BEATs are.

    Raises:
        InputError: if the encoder publishes no ``sample_rate``, or ``spec_augment`` is given and it
            has no ``features``.
    """

    encoder: AudioEncoder

    def __init__(
        self,
        encoder: AudioEncoder,
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
        """Compute what this tower and its momentum copy share.

        Args:
            waveforms: ``[B, samples]``.
            lengths: ``[B]`` valid samples, best on the CPU; ``None`` if no clip is padded.

        Returns:
            Keyword arguments of :meth:`forward`: ``features`` where the encoder computes some
            without weights, otherwise ``waveforms`` and ``lengths`` on one device.
        """
        if hasattr(self.encoder, "features"):
            return {"features": self.encoder.features(waveforms, lengths)}
        if lengths is not None:
            lengths = to_device(lengths, waveforms.device)
        return {"waveforms": waveforms, "lengths": lengths}

    def forward(
        self,
        waveforms: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Any = None,
    ) -> tuple[Tensor, AudioTokens]:
        """Embed clips, given as waveforms or as what :meth:`prepare` made of them.

        Args:
            waveforms: ``[B, samples]`` float32 at the encoder's ``sample_rate``.
            lengths: ``[B]`` valid samples; ``None`` if no clip is padded.
            features: of the encoder, in place of waveforms.

        Returns:
            ``[B, d]`` unit-norm float32 embeddings, and the tokens.

        Raises:
            ValueError: if waveforms and features are both given or both missing.
        """
        if (waveforms is None) == (features is None):
            got = "neither" if waveforms is None else "both"
            raise ValueError(f"The audio tower takes waveforms or features, but got {got}.")
        inputs = {"features": features} if waveforms is None else self.prepare(waveforms, lengths)
        encoder: Any = self.encoder  # takes `features` only where it computes some
        if "features" not in inputs:
            tokens = encoder(inputs["waveforms"], inputs["lengths"])
        elif self.training and self.spec_augment is not None:
            tokens = encoder(features=_masked(inputs["features"], self.spec_augment))
        else:
            tokens = encoder(features=inputs["features"])
        return unit_norm(self.projection(self.pooling(*tokens))), tokens


class TextTower(nn.Module):
    """Text encoder, pooling and projection.

    Args:
        encoder: see :class:`~atr_moco_plugin.contracts.TextEncoder`.
        embed_dim: size d of the embedding.
        pooling: ``cls`` or ``mean``.

    Raises:
        InputError: ``cls`` for an encoder that is ``causal``, whose first token has seen no other.
    """

    encoder: TextEncoder

    def __init__(
        self, encoder: TextEncoder, embed_dim: int, pooling: Literal["cls", "mean"]
    ) -> None:
        super().__init__()
        if pooling == "cls" and getattr(encoder, "causal", False):
            raise InputError(
                "`model.text_pooling` is cls, but the first token of this text encoder has seen "
                "none of the others, so that captions would look alike: set it to mean."
            )
        self.encoder = encoder
        self.pooling = MeanPooling() if pooling == "mean" else _FirstToken()
        self.projection = nn.Linear(encoder.width, embed_dim)

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, TextTokens]:
        """``[B, L]`` ids and mask -> ``[B, d]`` unit-norm float32 embeddings and the tokens."""
        tokens = self.encoder(input_ids, mask)
        return unit_norm(self.projection(self.pooling(tokens.states, tokens.mask))), tokens


class _FirstToken(nn.Module):
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return states[:, 0]


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
