"""What text and audio encoders of the transformers library share."""

from __future__ import annotations

from typing import Any

from torch import nn


class HfEncoder(nn.Module):
    """An encoder of the transformers library.

    Attributes:
        model: the transformers model, without pooler and heads.
        width: width of the token states.
    """

    weights_option = "pretrained"
    model: Any
    width: int

    @property
    def layers(self) -> nn.ModuleList | None:
        """The encoder's layers, from input to output; ``None`` where they are not one list, as in
        ALBERT."""
        depth = self.model.config.num_hidden_layers
        stacks = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        return max(stacks, key=_size, default=None)

    def no_weight_decay(self) -> set[str]:
        """Learned tokens and positions that are added like a bias."""
        return {name for name, p in self.named_parameters() if p.ndim > 2 and len(p) == 1}


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
