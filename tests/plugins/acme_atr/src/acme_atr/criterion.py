from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atr_moco_plugin.distributed import gather
from atr_moco_plugin.queue import EmbeddingQueue


@dataclass(kw_only=True)
class SiglipConfig:
    temperature: float = 0.1
    bias: float = -10.0
    queue_size: int = 1_024  # rows for the hooks to look at; the loss does not use them


class Siglip(nn.Module):
    """A sigmoid for every pair of the batch (SigLIP, Zhai et al. 2023)."""

    config_class = SiglipConfig
    measures = ("loss", "temperature", "bias")

    def __init__(self, model: nn.Module, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.temperature = nn.Parameter(torch.tensor([config.temperature]))
        self.bias = nn.Parameter(torch.tensor([config.bias]))
        self.audio_queue = EmbeddingQueue(config.queue_size, model.embed_dim)

    @property
    def queues(self) -> dict[str, EmbeddingQueue]:
        return {"audio": self.audio_queue}

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        self.temperature.clamp_(0.01, 1.0)

    def forward(
        self,
        audio: Mapping[str, Any],
        text: Mapping[str, Any],
        clip_ids: Tensor,
        caption_ids: Tensor,
    ) -> dict[str, Tensor]:
        a, _ = self.model.audio(**audio)
        u, _ = self.model.text(**text)
        logits = a @ u.T / self.temperature + self.bias
        matches = clip_ids[:, None] == clip_ids
        loss = -F.logsigmoid(torch.where(matches, logits, -logits)).sum(dim=1).mean()
        if self.training:
            self.audio_queue.enqueue(gather(a.detach()), gather(clip_ids), gather(caption_ids))
        return {
            "loss": loss,
            "temperature": self.temperature.detach().squeeze(),
            "bias": self.bias.detach().squeeze(),
        }
