"""BEATs' transformer: convolutional positions, then post-norm layers with scaled residuals."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, dropout, gelu, relu
from torch.nn.utils.parametrizations import weight_norm

from atr_moco_plugin.encoders.beats.attention import GatedSelfAttention
from atr_moco_plugin.encoders.beats.config import BeatsConfig
from atr_moco_plugin.encoders.beats.relative_position import RelativePositionBias

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": relu}

# Finite, so that a row without valid keys has no NaN, and representable in float16.
_MASKED = -3e4


class BeatsTransformer(nn.Module):
    """Contextualises the projected patches."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.dropout = config.dropout
        # In a sequence for the official parameter names, "pos_conv.0".
        self.pos_conv = nn.Sequential(_position_convolution(config))
        self.relative_attention_bias = (
            RelativePositionBias(
                config.num_buckets, config.max_distance, config.encoder_attention_heads
            )
            if config.relative_position_embedding
            else None
        )
        self.layers = nn.ModuleList(BeatsLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the convolution's direction and gain anew, in place. The convolution's own
        ``reset_parameters`` does not reach through the weight norm."""
        weight = self.pos_conv.get_submodule("0.parametrizations.weight")
        gain, direction = weight.parameters()
        nn.init.normal_(direction, std=_position_std(*direction.shape))
        gain.copy_(direction.norm(dim=(0, 1), keepdim=True))

    def forward(self, x: Tensor, mask: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """Return token states ``[B, T, width]``.

        Args:
            x: ``[B, T, width]`` projected patches.
            mask: ``[B, T]`` bool, ``True`` at valid tokens; ``None`` where all are. A row without
                any valid token stays finite.
            kept: ``[K]`` int64 indices of the tokens that the layers see and that come out;
                ``None`` for all. The convolutional position needs them all.
        """
        x = dropout(self.positioned(x, mask), self.dropout, self.training)
        return self.run(x, mask, kept=kept)

    def positioned(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Patches with their convolutional positions; arguments as of :meth:`forward`."""
        if mask is not None:
            # Zeros past a clip's end, as the convolution pads a clip that is alone.
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        positions = self._convolve(x.transpose(1, 2))[..., : x.size(1)]  # an even kernel adds one
        states: Tensor = self.layer_norm(x + gelu(positions).transpose(1, 2))
        return states

    def run(
        self,
        x: Tensor,
        mask: Tensor | None,
        first: int = 0,
        end: int | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Run states ``[B, T, width]`` through the layers ``first`` to ``end - 1``, from 0; with
        ``kept``, those of them at these indices, which are as far apart as they were."""
        bias, layers = self.relative_attention_bias, self.layers[first:end]
        relative = bias(x.size(1)) if bias is not None and len(layers) else None
        if kept is not None:
            x = x.index_select(1, kept)
            mask = None if mask is None else mask.index_select(1, kept)
            if relative is not None:
                relative = relative.index_select(1, kept).index_select(2, kept)
        key_bias = None if mask is None else _key_bias(mask, x.dtype)
        for layer in layers:
            x = layer(x, relative, key_bias)
        return x

    def _convolve(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            positions: Tensor = self.pos_conv(x)
            return positions
        # In float32 on a CPU: with AMX, oneDNN 3.7 (torch 2.9) returns other numbers altogether in
        # bfloat16 where a group has fewer than 16 channels.
        conv = self.pos_conv[0]
        assert isinstance(conv, nn.Conv1d)
        assert isinstance(conv.padding, tuple) and conv.bias is not None
        with torch.autocast("cpu", enabled=False):
            weight, bias = conv.weight.float(), conv.bias.float()
            y = conv1d(x.float(), weight, bias, padding=conv.padding, groups=conv.groups)
        return y.to(x.dtype)


class BeatsLayer(nn.Module):
    """Attention and feed-forward block, each ``LayerNorm(alpha * x + f(x))``.

    With ``deep_norm``, ``alpha = (2 layers)^(1/4)`` and the weights of the value path start smaller
    by ``beta = (8 layers)^(-1/4)`` (DeepNet, arXiv:2203.00555, encoder-only).
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.activation = _ACTIVATIONS[config.activation_fn]
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = GatedSelfAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self._initialise(config)

    def forward(self, x: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """``x [B, T, width]`` to the same shape; biases as in :class:`GatedSelfAttention`."""
        y = dropout(self.self_attn(x, bias, key_bias), self.dropout, self.training)
        x = self.self_attn_layer_norm(self.alpha * x + y)
        y = dropout(self.activation(self.fc1(x)), self.activation_dropout, self.training)
        y = dropout(self.fc2(y), self.dropout, self.training)
        states: Tensor = self.final_layer_norm(self.alpha * x + y)
        return states

    def _initialise(self, config: BeatsConfig) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if config.deep_norm:
            attention, beta = self.self_attn, (8 * config.encoder_layers) ** -0.25
            for projection in (attention.q_proj, attention.k_proj):
                nn.init.xavier_normal_(projection.weight)
            for projection in (attention.v_proj, attention.out_proj, self.fc1, self.fc2):
                nn.init.xavier_normal_(projection.weight, gain=beta)


def _position_convolution(config: BeatsConfig) -> nn.Conv1d:
    """Grouped convolution over tokens, its weight normalised for each kernel position."""
    width, kernel = config.encoder_embed_dim, config.conv_pos
    convolution = nn.Conv1d(
        width, width, kernel, padding=kernel // 2, groups=config.conv_pos_groups
    )
    nn.init.normal_(convolution.weight, std=_position_std(*convolution.weight.shape))
    nn.init.zeros_(convolution.get_parameter("bias"))
    normalised: nn.Conv1d = weight_norm(convolution, dim=2)
    return normalised


def _position_std(width: int, _: int, kernel: int) -> float:
    return math.sqrt(4 / (kernel * width))


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, 1, 1, T]``: 0 at valid keys, else so negative that softmax gives exactly 0."""
    key_bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return key_bias.masked_fill_(~mask, _MASKED)[:, None, None, :]
