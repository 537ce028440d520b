"""From which position the tokens of a text are counted."""

from __future__ import annotations

from torch import nn


def first_position(encoder: nn.Module) -> int:
    """The position of a text's first token: RoBERTa and its kin count from behind the padding's, so
    that they take that many tokens less than they have positions."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
