"""What text and audio encoders of the transformers library share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tensors.eval_mode import eval_mode


class HfEncoder(nn.Module):
    """An encoder of the transformers library.

    Args:
        model: the transformers model, without pooler and heads.

    Attributes:
        model: the same.
        width: width of the token states.
    """

    weights_option = "pretrained"
    model: Any
    width: int

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        width = getattr(self.model.config, "hidden_size", None)
        if not isinstance(width, int):
            raise InputError(
                f"A {self.model.config.model_type} has no one `hidden_size`: take a model with one "
                "encoder, such as bert or wav2vec2."
            )
        self.width = width

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder's layers, from input to output; ALBERT's, which share weights, are one."""
        stacks = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len({type(x) for x in module}) == 1
        ]
        return max(stacks, key=_size)

    def no_weight_decay(self) -> set[str]:
        """Learned tokens and positions that are added like a bias."""
        return {name for name, p in self.named_parameters() if p.ndim > 2 and len(p) == 1}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module without dropout, gradients and autocast, then put its modes back."""
    device = next(module.parameters()).device.type
    with torch.no_grad(), torch.autocast(device, enabled=False), eval_mode([module]):
        yield


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
