"""The text tower of a retrieval model: encoder, pooling and projection. It takes its input at any
stage, as the audio tower in :mod:`atr_moco_plugin.model.towers` does."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from atr_moco_plugin.contracts import TextEncoder
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.freezing import FreezableTower
from atr_moco_plugin.model.pooling import FirstToken, MeanPooling
from atr_moco_plugin.model.stages import cast_for_both, cast_states, finished, the_stage
from atr_moco_plugin.tokens import TextTokens


class TextTower(FreezableTower):
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
        self.pooling = MeanPooling() if pooling == "mean" else FirstToken()
        self.projection = nn.Linear(encoder.width, embed_dim)

    def prepare(
        self,
        input_ids: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        lower: Any = None,
        tokens: TextTokens | None = None,
        pooled: Tensor | None = None,
    ) -> dict[str, Any]:
        """Compute what this tower and its momentum copy share, without a gradient.

        Args:
            input_ids: ``[B, L]`` int64, with ``mask``.
            mask: ``[B, L]`` bool.
            lower: as of :meth:`forward`, and so the others.

        Returns:
            Keyword arguments of :meth:`forward`: ``tokens`` if the encoder is frozen, ``lower`` if
            some layers are and it offers ``lower``, else ``input_ids`` and ``mask``.
        """
        stage = the_stage(input_ids=input_ids, lower=lower, tokens=tokens, pooled=pooled)
        if input_ids is None:
            return cast_for_both(stage, self.projection.weight.dtype)
        self.check_frozen()
        encoder: Any = self.encoder
        with torch.no_grad():
            if self.frozen == "all":
                return {"tokens": encoder(input_ids, mask)}
            if self.lower_layers is not None:
                return {"lower": encoder.lower(input_ids, mask, layers=self.lower_layers)}
        return {"input_ids": input_ids, "mask": mask}

    def forward(
        self,
        input_ids: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        lower: Any = None,
        tokens: TextTokens | None = None,
        pooled: Tensor | None = None,
    ) -> tuple[Tensor, TextTokens | None]:
        """Embed captions, given as ids or as what :meth:`prepare` made of them.

        Args:
            input_ids: ``[B, L]`` int64, with ``mask``.
            mask: ``[B, L]`` bool, ``True`` where a token is of the caption.
            lower: of the encoder, after its frozen layers, in place of ids.
            tokens: of the encoder, in place of ids; any float dtype.
            pooled: ``[B, width]`` of the pooling, in place of ids; any float dtype. ``tokens`` may
                come with it, and then are for a matching head alone.

        Returns:
            ``[B, d]`` unit-norm float32 embeddings, and the tokens; ``None`` for ``pooled`` alone,
            which no matching head can do with.

        Raises:
            ValueError: if not exactly one of ids and what may be in their place is given, but for
                ``tokens`` with ``pooled``.
        """
        stage = self.prepare(input_ids, mask, lower=lower, tokens=tokens, pooled=pooled)
        if pooled is None:
            tokens = finished(self.encoder, stage, self.projection.weight.dtype)
            assert tokens is not None and tokens.states is not None, "an encoder makes states"
            pooled = self.pooling(tokens.states, tokens.mask)
        elif tokens is not None:
            tokens = cast_states(tokens, self.projection.weight.dtype)
        weight = self.projection.weight
        return self.unit_vectors(self.projection(pooled.to(weight.dtype))), tokens
