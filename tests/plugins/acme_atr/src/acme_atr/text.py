from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from atr_moco_plugin.tokens import TextTokens


@dataclass(kw_only=True)
class GruConfig:
    vocab_size: int = 30_522
    width: int = 64


class Gru(nn.Module):
    """Embeddings and a recurrent layer."""

    config_class = GruConfig

    def __init__(self, config: GruConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.gru = nn.GRU(config.width, config.width, batch_first=True)

    @classmethod
    def from_config(cls, config: GruConfig) -> Gru:
        return cls(config)

    def forward(self, input_ids: Tensor, mask: Tensor) -> TextTokens:
        # It reads from left to right and padding is on the right, so no token sees any.
        states, _ = self.gru(self.embedding(input_ids))
        return TextTokens(states, mask, input_ids)
