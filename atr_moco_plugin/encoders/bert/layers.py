"""BERT's embeddings and layers, with an optional cross-attention to audio.

Post-norm layers, exact GELU and learned absolute positions, as in Devlin et al. (2019); the
cross-attention between self-attention and feed-forward is that of ALBEF and BLIP.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atr_moco_plugin.encoders.bert.config import BertConfig
from atr_moco_plugin.tokens import AudioTokens, take_rows


def init_bert_weights(parent: nn.Module, std: float) -> None:
    """Draw BERT's initial weights in place: normal(0, ``std``), biases and padding rows zero.

    Layer norms keep PyTorch's ones and zeros.
    """
    for module in parent.modules():
        _init(module, std)


def _init(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


class Attention(nn.Module):
    """Multi-head attention with BERT's residual: ``LayerNorm(x + attend(x, source))``.

    Args:
        config: gives the width of ``x``, the heads, the dropouts and the epsilon.
        source_width: width of the states that keys and values are made of.
    """

    def __init__(self, config: BertConfig, source_width: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, x: Tensor, source: Tensor, mask: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """Attend from ``x`` to the valid tokens of ``source``.

        Args:
            x: ``[B, L, width]`` float.
            source: ``[B, S, source_width]`` float.
            mask: ``[B, S]`` bool, ``True`` where a token of ``source`` may be attended to. A row
                without any attends to nothing: its context is zero and never NaN.
            rows: ``[B]`` int64, the row of ``source`` that each row of ``x`` attends to, where
                ``source`` and ``mask`` have another number of rows; keys and values are made once
                a row of ``source``. ``None`` pairs row by row.

        Returns:
            ``[B, L, width]`` float.
        """
        key, value = self.key(source), self.value(source)
        if rows is not None:
            key, value, mask = (take_rows(y, rows) for y in (key, value, mask))
        some = mask.any(dim=1)[:, None, None, None]
        # What a fully masked softmax gives depends on the attention kernel, so such a row is
        # unmasked for the kernel and its context dropped afterwards.
        context = F.scaled_dot_product_attention(
            self._heads(self.query(x)),
            self._heads(key),
            self._heads(value),
            attn_mask=mask[:, None, None, :] | ~some,
            dropout_p=self.attention_dropout if self.training else 0.0,
        ).masked_fill(~some, 0.0)
        context = context.transpose(1, 2).flatten(2)
        residual: Tensor = self.norm(x + self.dropout(self.output(context)))
        return residual

    def _heads(self, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        split = states.view(batch, length, self.num_heads, width // self.num_heads)
        return split.transpose(1, 2)


class CrossAttention(Attention):
    """Attention from text states to audio tokens; see :class:`Attention`.

    Keys and values are made from the audio width, which need not be the text width.

    Args:
        config: configuration of the text encoder.
        audio_width: width of the audio tokens.
    """

    def __init__(self, config: BertConfig, audio_width: int) -> None:
        super().__init__(config, audio_width)

    def forward(
        self, x: Tensor, source: Tensor, mask: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """See :class:`Attention`."""
        if rows is not None and len(source) == 1:
            # All of one clip. A query depends on no other one, so they may be one long row, and
            # nothing of the clip is copied for each of them.
            return super().forward(x.flatten(0, 1)[None], source, mask).view_as(x)
        return super().forward(x, source, mask, rows)


class BertLayer(nn.Module):
    """One post-norm BERT layer: self-attention, optional cross-attention, feed-forward."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.hidden_size)
        self.ffn_in = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_out = nn.Linear(config.intermediate_size, config.hidden_size)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        cross: CrossAttention | None = None,
        audio: AudioTokens | None = None,
        audio_rows: Tensor | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            x: ``[B, L, width]`` float token states.
            mask: ``[B, L]`` bool, ``True`` where a token is valid.
            cross: cross-attention run between self-attention and feed-forward, as in ALBEF and
                BLIP.
            audio: the tokens ``cross`` attends to, row by row: ``[B, T, audio_width]``.
            audio_rows: ``[B]`` int64, the row of ``audio`` of each row of ``x``, where rows share
                one.

        Returns:
            ``[B, L, width]`` float.

        Raises:
            ValueError: one of ``cross`` and ``audio`` is given without the other.
        """
        if (cross is None) != (audio is None):
            raise ValueError("BertLayer takes cross and audio together: give both or neither.")
        x = self.attention(x, x, mask)
        if cross is not None and audio is not None:
            x = cross(x, audio.states, audio.mask, audio_rows)
        normed: Tensor = self.ffn_norm(x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(x)))))
        return normed


class Fusion(NamedTuple):
    """Audio that captions attend to: one cross-attention for each layer of a pass.

    Both matching heads build one and run it. The way is head, pass through the layers, layer,
    cross-attention, in this order, whether the layers are the text encoder's or the head's own.

    Attributes:
        crosses: the head's cross-attentions, from lower to upper layer.
        audio: ``[B, T, audio_width]`` tokens; row i is fused into caption i.
        audio_rows: ``[B]`` int64, the row of ``audio`` that is fused into each caption, where
            captions share clips: the keys and values of a clip are then made once. ``None`` pairs
            row by row.
    """

    crosses: nn.ModuleList
    audio: AudioTokens
    audio_rows: Tensor | None = None

    def run(self, layers: nn.ModuleList, x: Tensor, mask: Tensor) -> Tensor:
        """Run ``x`` ``[B, L, width]`` through layers, each with its cross-attention.

        Raises:
            ValueError: there are fewer or more cross-attentions than layers.
        """
        if len(self.crosses) != len(layers):
            raise ValueError(
                f"The fusion has {len(layers)} layers but got {len(self.crosses)} "
                "cross-attentions; give one a layer."
            )
        for layer, cross in zip(layers, self.crosses, strict=True):
            x = layer(x, mask, cross, self.audio, self.audio_rows)
        return x


class BertStates(NamedTuple):
    """Captions after the lowest layers, which are frozen.

    Attributes:
        states: ``[B, L, width]``.
        mask: ``[B, L]`` bool, ``True`` where a token is valid.
        input_ids: ``[B, L]`` int64.
        layers: how many layers they have been through.
    """

    states: Tensor
    mask: Tensor
    input_ids: Tensor
    layers: int


class BertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.token_type = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def no_weight_decay(self) -> set[str]:
        """The token type is a bias of every token."""
        return {"token_type.weight"}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed ``input_ids`` ``[B, L]`` int64 as ``[B, L, width]`` float."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        # BERT was trained with token type 0 on every token of a single sentence: leaving it out
        # would shift every embedding.
        x = self.word(input_ids) + self.position(positions) + self.token_type.weight[0]
        embedded: Tensor = self.dropout(self.norm(x))
        return embedded
