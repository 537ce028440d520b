"""The criterion without momentum: what the others are compared with, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from atr_moco_plugin.criterion.atc import contrastive_loss
from atr_moco_plugin.criterion.config import TEMPERATURE_RANGE, AtcConfig
from atr_moco_plugin.criterion.positives import positive_pairs
from atr_moco_plugin.distributed import gather, mean_weight, sizes
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue

Inputs = Mapping[str, Any]
"""Keyword arguments of a tower."""


class Atc(nn.Module):
    """Contrastive loss over the global batch, without momentum: the baseline.

    The model has two towers and an embedding size, like
    :class:`~atr_moco_plugin.model.RetrievalModel`: ``model.audio(**audio)`` and
    ``model.text(**text)`` return ``(embeddings [B, d] unit-norm float32, tokens)``, and
    ``model.embed_dim`` is d. Matching criteria also call ``model.match(text_tokens, audio_tokens)
    -> logits [P, 2]``, row by row, or with ``audio_rows [P]`` as a third argument, the row of
    ``audio_tokens`` of each text, where the model has a true ``shares_audio``.

    Args:
        model: the online model; its parameters are trained.
        config: the options.

    Raises:
        ValueError: when ``config.embed_dim`` is not the model's.
    """

    config_class: ClassVar[type[AtcConfig]] = AtcConfig

    measures: ClassVar[tuple[str, ...]] = ("loss", "loss_atc", "temperature")
    """What ``forward`` returns."""

    temperature: nn.Parameter

    def __init__(self, model: nn.Module, config: AtcConfig) -> None:
        super().__init__()
        if config.embed_dim not in (None, model.embed_dim):
            raise InputError(
                f"`embed_dim` of the criterion is {config.embed_dim}, "
                f"but the model's embeddings have size {model.embed_dim}."
            )
        self.config = config
        self.model = model
        # One element and not a scalar: FSDP2 shards no 0-D parameter.
        self.temperature = nn.Parameter(torch.tensor([config.temperature]))

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        """Modality to queue, empty for a criterion without queues."""
        return {}

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        """Clip the temperature. Call it once an optimizer step, and outside of ``forward``: FSDP2
        loses a write made inside, and a second pass before backward would find it changed."""
        self.temperature.clamp_(*TEMPERATURE_RANGE)

    def forward(
        self, audio: Inputs, text: Inputs, clip_ids: Tensor, caption_ids: Tensor
    ) -> dict[str, Tensor]:
        """Compute the loss of one batch.

        Args:
            audio: arguments of the audio tower.
            text: arguments of the text tower.
            clip_ids: ``[B]`` int64.
            caption_ids: ``[B]`` int64.

        Returns:
            ``loss`` (scalar with a gradient) and its parts and measures, scalars without one. The
            mean of the losses over ranks is that of the global batch, also where ranks have
            different numbers of items.
        """
        a, _ = self.model.audio(**audio)
        u, _ = self.model.text(**text)
        counts = sizes(len(a), a.device)
        ids = gather(clip_ids, counts=counts), gather(caption_ids, counts=counts)
        positives = positive_pairs(clip_ids, caption_ids, *ids, self.config.positives)
        columns = gather(a, grad=True, counts=counts), gather(u, grad=True, counts=counts)
        loss = contrastive_loss(a, u, *columns, positives, self.temperature)
        loss = loss * mean_weight(len(a), len(columns[0]))
        return {
            "loss": loss,
            "loss_atc": loss.detach(),
            "temperature": self.temperature.detach().squeeze(),
        }
