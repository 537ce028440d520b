"""The smallest model that a criterion trains: two linear towers. Tests import it by its name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from atr_moco_plugin.tokens import AudioTokens, TextTokens


class LinearTower(nn.Module):
    """``[B, 6]`` to unit-norm embeddings ``[B, 4]``."""

    def __init__(self, of_text: bool) -> None:
        super().__init__()
        self.of_text = of_text
        self.encoder, self.projection = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        # A momentum copy is float32 where the tower is not.
        states = self.encoder(x.to(self.encoder.weight.dtype))
        mask = torch.ones(len(x), 1, dtype=torch.bool)
        tokens: Any = AudioTokens(states[:, None], mask)
        if self.of_text:
            tokens = TextTokens(*tokens, torch.zeros(len(x), 1, dtype=torch.int64))
        return normalize(self.projection(states).float(), dim=1), tokens


class LinearModel(nn.Module):
    """What a criterion asks of a model."""

    embed_dim = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio, self.text = LinearTower(of_text=False), LinearTower(of_text=True)
        self.head = nn.Linear(10, 2)

    def match(self, text: TextTokens, audio: AudioTokens) -> Tensor:
        return self.head(torch.cat([text.states[:, 0], audio.states[:, 0]], dim=1))


def linear_batch(seed: int = 0) -> dict[str, Any]:
    """Four pairs, in the arguments of a criterion."""
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(2, 4, 6, generator=generator)
    ids = torch.arange(4) + 4 * seed
    return {"audio": {"x": audio}, "text": {"x": text}, "clip_ids": ids, "caption_ids": ids}
