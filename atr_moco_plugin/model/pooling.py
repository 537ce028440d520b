"""From token states to one vector a clip."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atr_moco_plugin.errors import InputError

PoolingKind = Literal["mean", "attention", "cls"]

_HEAD_WIDTH = 64


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Average the valid tokens.

    Args:
        states: ``[B, T, width]`` float.
        mask: ``[B, T]`` bool, ``True`` = valid.

    Returns:
        ``[B, width]``, zeros where a row has no valid token.
    """
    weights = mask.to(states.dtype)[:, :, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class MeanPooling(nn.Module):
    """:func:`mean_pool` as a module without parameters. The default: BEATs has no CLS token, and
    its own fine-tuned heads average over the tokens (BEATs, Chen et al. 2023, sec. 3.2)."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width]``, ``[B, T]`` -> ``[B, width]``."""
        return mean_pool(states, mask)


class FirstToken(nn.Module):
    """The state of the first token, which is ``[CLS]`` in BERT."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width]``, ``[B, T]`` -> ``[B, width]``."""
        return states[:, 0]


class AttentionPooling(nn.Module):
    """Weighted mean, the weight a softmax of one learned score a token (Ilse et al. 2018, eq. 7
    without the tanh layer)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero scores, in place: training starts from the plain mean."""
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width]``, ``[B, T]`` -> ``[B, width]``."""
        score = self.score(states).squeeze(-1).float()
        weight = score.masked_fill(~mask, torch.finfo(score.dtype).min).softmax(dim=1)
        return torch.einsum("bt,btw->bw", weight.to(states.dtype), states)


class ClsPooling(nn.Module):
    """A learned CLS token that attends to the tokens in one pre-norm block after the encoder (class
    attention, CaiT, Touvron et al. 2021), so that it works with any audio encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD_WIDTH)
        if width % self.heads:
            raise InputError(f"`cls` pooling cannot split width {width} into {self.heads} heads.")
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.final_norm = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the token anew, in place; the layers have a ``reset_parameters`` of their own."""
        nn.init.normal_(self.token, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """The token stands for no input and is added like a bias."""
        return {"token"}

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[B, T, width]``, ``[B, T]`` -> ``[B, width]``."""
        b = states.size(0)
        token = self.token.expand(b, -1, -1).to(states.dtype)
        tokens = self.norm(torch.cat([token, states], dim=1))
        mask = F.pad(mask, [1, 0], value=True)
        query = self._split(self.query(tokens[:, :1]))
        key, value = (self._split(x) for x in self.key_value(tokens).chunk(2, dim=-1))
        attended = F.scaled_dot_product_attention(query, key, value, mask[:, None, None, :])
        pooled = token + self.out(attended.transpose(1, 2).reshape(b, 1, -1))
        normed: Tensor = self.final_norm(pooled)
        return normed.squeeze(1)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)


def build_pooling(kind: PoolingKind, width: int) -> nn.Module:
    """The pooling module of that name.

    Raises:
        InputError: for an unknown name.
    """
    if kind == "mean":
        return MeanPooling()
    if kind == "attention":
        return AttentionPooling(width)
    if kind == "cls":
        return ClsPooling(width)
    raise InputError(f"`pooling` is {kind!r}, but must be one of mean, attention, cls.")
