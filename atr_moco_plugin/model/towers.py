"""The audio tower of a retrieval model, encoder, pooling and projection; the other one is in
:mod:`atr_moco_plugin.model.text_tower`.

A tower takes its input at any stage and finishes from there: waveforms, features (no weights are
needed for them), the states after frozen layers, tokens, pooled tokens. ``prepare`` moves an input
as far as nothing that trains is needed, so that a momentum copy does not compute it again::

    inputs = tower.prepare(waveforms, lengths)      # {"lower": ...} with frozen layers
    embeddings, tokens = tower(**inputs)
    momentum_embeddings, _ = momentum_tower(**inputs)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.contracts import AudioEncoder
from atr_moco_plugin.model import patch_dropout as dropping
from atr_moco_plugin.model.freezing import FreezableTower
from atr_moco_plugin.model.patch_dropout import PatchDropoutConfig
from atr_moco_plugin.model.pooling import PoolingKind, build_pooling
from atr_moco_plugin.model.spec_augment import (
    SpecAugmentConfig,
    check_spec_augment,
    masked_features,
)
from atr_moco_plugin.model.stages import cast_for_both, cast_states, finished, the_stage
from atr_moco_plugin.sample_rate import check_sample_rate
from atr_moco_plugin.tensors.compile import not_compiled
from atr_moco_plugin.tensors.transfer import to_device
from atr_moco_plugin.tokens import AudioTokens, take_rows, take_tokens


class AudioTower(FreezableTower):
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
        patch_dropout: which tokens are dropped in training mode, or ``None``; for an encoder that
            offers ``draw_patches``.

    Raises:
        InputError: if the encoder publishes no ``sample_rate``, or lacks what ``spec_augment`` or
            ``patch_dropout`` needs.
    """

    encoder: AudioEncoder

    def __init__(
        self,
        encoder: AudioEncoder,
        embed_dim: int,
        pooling: PoolingKind,
        spec_augment: SpecAugmentConfig | None = None,
        patch_dropout: PatchDropoutConfig | None = None,
    ) -> None:
        super().__init__()
        kind = type(encoder)
        check_sample_rate(
            getattr(encoder, "sample_rate", None),
            f"the audio encoder {kind.__module__}.{kind.__qualname__}",
        )
        check_spec_augment(spec_augment, encoder)
        dropping.check_encoder(patch_dropout, encoder)
        self.encoder = encoder
        self.pooling = build_pooling(pooling, encoder.width)
        self.projection = nn.Linear(encoder.width, embed_dim)
        self.spec_augment = spec_augment
        self.patch_dropout = patch_dropout

    @not_compiled
    def prepare(
        self,
        waveforms: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Any = None,
        lower: Any = None,
        tokens: AudioTokens | None = None,
        pooled: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> dict[str, Any]:
        """Compute what this tower and its momentum copy share, without a gradient.

        That are the features, where the encoder computes some without weights, and what is frozen.
        With SpecAugment in training mode nothing frozen is shared: the copy sees no masks.

        Args:
            waveforms: ``[B, samples]``.
            lengths: ``[B]`` valid samples, best on the CPU; ``None`` if no clip is padded.
            features: as of :meth:`forward`, and so the others.

        Returns:
            Keyword arguments of :meth:`forward`: ``tokens`` if the encoder is frozen, ``lower`` if
            some layers are and it offers ``lower``, else ``features`` if it has some, else
            ``waveforms`` and ``lengths`` on one device.
        """
        stage = the_stage(
            waveforms=waveforms, features=features, lower=lower, tokens=tokens, pooled=pooled
        )
        if waveforms is not None:
            stage = self._without_weights(waveforms, lengths)
        if not (self.training and self.spec_augment is not None):
            stage = self.frozen_part(stage)
        stage = cast_for_both(stage, self.projection.weight.dtype)
        return stage if rows is None else {**stage, "rows": rows}

    def forward(
        self,
        waveforms: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Any = None,
        lower: Any = None,
        tokens: AudioTokens | None = None,
        pooled: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, AudioTokens | None]:
        """Embed clips, given as waveforms or as what :meth:`prepare` made of them.

        Args:
            waveforms: ``[B, samples]`` float32 at the encoder's ``sample_rate``.
            lengths: ``[B]`` valid samples; ``None`` if no clip is padded.
            features: of the encoder, in place of waveforms.
            lower: of the encoder, after its frozen layers, in place of waveforms.
            tokens: of the encoder, in place of waveforms; any float dtype.
            pooled: ``[B, width]`` of the pooling, in place of waveforms; any float dtype.
                ``tokens`` may come with it, and then are for a matching head alone.
            rows: ``[N]`` int64, the clip of each item, where items share clips.

        Returns:
            ``[B, d]`` unit-norm float32 embeddings, and the tokens; ``None`` for ``pooled`` alone,
            which no matching head can do with. With ``rows``, N of both.

        Raises:
            ValueError: if not exactly one of waveforms and what may be in their place is given,
                but for ``tokens`` with ``pooled``.
        """
        stage = the_stage(
            waveforms=waveforms, features=features, lower=lower, tokens=tokens, pooled=pooled
        )
        if waveforms is not None:
            stage = self._without_weights(waveforms, lengths)
        if pooled is None:
            tokens = self._tokens(stage)
            pooled = self.pooling(*tokens)
        elif tokens is not None:
            tokens = cast_states(tokens, self.projection.weight.dtype)
        embeddings = self.unit_vectors(self.projection(pooled.to(self.projection.weight.dtype)))
        if rows is None:
            return embeddings, tokens
        return take_rows(embeddings, rows), None if tokens is None else take_tokens(tokens, rows)

    @not_compiled
    def _without_weights(self, waveforms: Tensor, lengths: Tensor | None) -> dict[str, Any]:
        """The features, and in training the patches that are dropped; else the waveforms."""
        if hasattr(self.encoder, "features"):
            stage = {"features": self.encoder.features(waveforms, lengths)}
            if self.training and self.patch_dropout is not None:
                return dropping.drawn(stage, self.patch_dropout, self.encoder, waveforms, lengths)
            return stage
        on_device = None if lengths is None else to_device(lengths, waveforms.device)
        return {"waveforms": waveforms, "lengths": on_device}

    def frozen_part(self, stage: dict[str, Any]) -> dict[str, Any]:
        """Run what is frozen of the encoder, outside of :meth:`forward`: a method of its own, so
        that FSDP can gather the weights for it.

        Args:
            stage: keyword arguments of :meth:`forward`.

        Returns:
            The same, or ``lower`` or ``tokens``.
        """
        return self._frozen_part(stage)

    def _frozen_part(self, stage: dict[str, Any]) -> dict[str, Any]:
        """Run the frozen part of the encoder on features, or waveforms and lengths."""
        encoder: Any = self.encoder
        if stage.keys() & {"features", "waveforms"}:
            self.check_frozen()
            with torch.no_grad():
                if self.frozen == "all":
                    return {"tokens": encoder(**stage)}
                if self.lower_layers is not None:
                    return {"lower": encoder.lower(**stage, layers=self.lower_layers)}
        return stage

    def _tokens(self, stage: dict[str, Any]) -> AudioTokens:
        if not self.training and self.patch_dropout is not None:
            stage = dropping.seen_by_copy(stage, self.patch_dropout)
        if "features" in stage and self.training and self.spec_augment is not None:
            stage = {"features": masked_features(stage["features"], self.spec_augment)}
        stage = self._frozen_part(stage)
        tokens: AudioTokens = finished(self.encoder, stage, self.projection.weight.dtype)
        return tokens
