"""Self-attention whose relative position bias is gated by each query (WavLM, arXiv:2110.13900)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from atr_moco_plugin.encoders.beats.config import BeatsConfig


class GatedSelfAttention(nn.Module):
    """Multi-head self-attention, ``softmax(q k / sqrt(d) + gate * bias) v``.

    The gate is computed from the projected query, unlike in WavLM, where it is computed from the
    layer's input. Parameter names are the official ones.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.gated = config.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def reset_parameters(self) -> None:
        """Set the scale of the gate in place. The projections reset themselves."""
        if self.gated:
            nn.init.ones_(self.grep_a)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, for
        :func:`~atr_moco_plugin.optim.param_groups.parameter_groups`."""
        return {"grep_a"}

    def forward(self, x: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """Attend over all keys.

        Args:
            x: ``[B, T, width]``.
            bias: ``[heads, T, T]`` relative position bias, or ``None`` for none.
            key_bias: ``[B, 1, 1, T]``, 0 at valid keys and very negative at padded ones, or
                ``None`` where all are valid.
        """
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if key_bias is not None:
            key_bias = key_bias.to(query.dtype)
        if bias is None:
            bias = key_bias
        else:
            bias = bias.to(query.dtype)
            gate = self._gate(query) if self.gated else query.new_ones(())
            # One pass over [B, heads, T, T], the largest tensor of the layer.
            bias = gate * bias if key_bias is None else torch.addcmul(key_bias, gate, bias)
        states = scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        attended: Tensor = self.out_proj(states.transpose(1, 2).flatten(2))
        return attended

    def _gate(self, query: Tensor) -> Tensor:
        """Gate of each query, ``[B, heads, T, 1]``, from ``query [B, heads, T, width / heads]``."""
        reset, update = (
            self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        )
        gate: Tensor = (reset * (update * self.grep_a - 1.0) + 2.0).to(query.dtype)
        return gate
