from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atr_moco_plugin.model.pooling import mean_pool
from atr_moco_plugin.tokens import AudioTokens, TextTokens


@dataclass(kw_only=True)
class MlpConfig:
    hidden: int = 64


class Mlp(nn.Module):
    """Two layers on the mean tokens of a caption and a clip."""

    config_class = MlpConfig

    def __init__(self, text_encoder: nn.Module, audio_width: int, config: MlpConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(text_encoder.width + audio_width, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, 2),
        )

    def forward(self, text_encoder: nn.Module, text: TextTokens, audio: AudioTokens) -> Tensor:
        means = mean_pool(text.states, text.mask), mean_pool(audio.states, audio.mask)
        return self.layers(torch.cat(means, dim=1))
