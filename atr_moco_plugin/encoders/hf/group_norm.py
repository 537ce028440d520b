"""Group norm over time that leaves padding out.

The smaller Wav2Vec2, HuBERT and WavLM models normalise each channel of their first convolution over
the whole length of the batch, so that padding would change every token of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from atr_moco_plugin.tokens import valid_first


class ClipGroupNorm(nn.GroupNorm):
    """Group norm with a group a channel, whose statistics are those of a clip's own frames.

    Attributes:
        counts: ``[B]`` integer, valid frames of each clip, set by :func:`counts_for`; ``None`` if
            no clip is padded.
    """

    counts: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, frames]`` -> the same shape; frames of padding mean nothing."""
        if self.counts is None:
            return super().forward(x)
        valid = valid_first(self.counts, x.size(2))[:, None]
        counts = self.counts[:, None, None]
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            x = x - (x * valid).sum(dim=2, keepdim=True) / counts
            variance = (x.square() * valid).sum(dim=2, keepdim=True) / counts
            scale = torch.rsqrt(variance + self.eps) * self.weight.float()[:, None]
            return (x * scale + self.bias.float()[:, None]).to(self.weight.dtype)


def leave_padding_out(model: nn.Module) -> None:
    """Replace each group norm of a model that has a group a channel by a :class:`ClipGroupNorm`
    with its weights, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.GroupNorm and child.num_groups == child.num_channels:
                norm = ClipGroupNorm(child.num_groups, child.num_channels, child.eps)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)


def counts_frames(layer: nn.Module) -> bool:
    """Whether a layer has a :class:`ClipGroupNorm` in it, which has no counts any more when the
    layer is computed again in the backward pass."""
    return any(isinstance(x, ClipGroupNorm) for x in layer.modules())


@contextmanager
def counts_for(model: nn.Module, counts: Tensor | None) -> Iterator[None]:
    """Tell the norms of a model how many frames of each clip are valid, for one forward pass.

    Args:
        model: what :func:`leave_padding_out` changed.
        counts: ``[B]`` frames of the convolution before the norm; ``None`` if no clip is padded.
    """
    norms = [module for module in model.modules() if isinstance(module, ClipGroupNorm)]
    try:
        for norm in norms:
            norm.counts = counts
        yield
    finally:
        for norm in norms:
            norm.counts = None
