"""A matching head for any pair of encoders: fusion layers on top of their tokens.

:class:`~atr_moco_plugin.heads.atm.AtmHead` runs the text encoder once more with a cross-attention
in each of its layers, for which it has to be this package's BERT. This head has layers of its own,
like the upper half of ALBEF's text encoder (Li et al. 2021), and asks of the encoders nothing but
token states and masks: HTSAT and RoBERTa in CLAP, or whatever a user brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.encoders.bert import (
    BertConfig,
    BertLayer,
    CrossAttention,
    Fusion,
    init_bert_weights,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.heads.pairs import check_pairs
from atr_moco_plugin.tokens import AudioTokens, TextTokens


@dataclass(kw_only=True)
class FusionHeadConfig(Config):
    """Size of the fusion layers.

    Raises:
        InputError: a number is below 1, or the dropout is out of range.
    """

    layers: int = 2
    """Fusion layers: self-attention, cross-attention to the audio tokens, feed-forward."""

    heads: int | None = None
    """Heads of every attention; they divide the text width. ``None`` takes one for each 64
    channels."""

    dropout: float = 0.1
    """Dropout of attention weights and residual branches."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "layers", "heads", least=1)
        yield from in_range(self, "dropout", least=0, below=1)


class FusionHead(nn.Module):
    """Fusion layers from random weights, and the two-way classifier on the first text token.

    Args:
        text_encoder: anything with a ``width``, the size of its token states; nothing of it is
            kept or run.
        audio_width: width of the audio tokens, from which keys and values are made.
        config: see :class:`FusionHeadConfig`.

    Raises:
        InputError: the heads do not divide the text width.
    """

    config_class = FusionHeadConfig
    shares_audio = True
    needs_text_states = True

    def __init__(
        self, text_encoder: Any, audio_width: int, config: FusionHeadConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or FusionHeadConfig()
        width = text_encoder.width
        heads = self.config.heads or max(1, width // 64)
        if width % heads:
            raise InputError(
                f"FusionHeadConfig.heads ({heads}) must divide the width of the text tokens "
                f"({width})."
            )
        self.audio_width, self.text_width = audio_width, width
        layer = BertConfig(
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=self.config.dropout,
            attention_probs_dropout_prob=self.config.dropout,
        )
        self.blocks = nn.ModuleList(BertLayer(layer) for _ in range(self.config.layers))
        self.crosses = nn.ModuleList(
            CrossAttention(layer, audio_width) for _ in range(self.config.layers)
        )
        self.classifier = nn.Linear(width, 2)
        # Always from scratch: what keeps the variance of a layer's input, at any width.
        init_bert_weights(self, width**-0.5)
        # Logits near zero, so that the first losses are near that of a head that knows nothing.
        nn.init.normal_(self.classifier.weight, std=0.02)

    def forward(
        self,
        text_encoder: Any,
        text: TextTokens,
        audio: AudioTokens,
        audio_rows: Tensor | None = None,
    ) -> Tensor:
        """Score pairs given row by row.

        Args:
            text_encoder: not used; other heads run it again.
            text: P captions, from their ``states``; column 0 is the ``[CLS]`` or ``<s>`` token.
            audio: P clips, ``[P, T, audio_width]``. Padded tokens never change a score.
            audio_rows: ``[P]`` int64, the row of ``audio`` of each pair, where pairs share clips:
                the keys and values of a clip are then made once. ``None`` pairs row by row.

        Returns:
            ``[P, 2]`` logits; index 1 means match.

        Raises:
            ValueError: text and audio differ in P, or the audio tokens have another width.
        """
        check_pairs(text, audio, self.audio_width, audio_rows)
        assert text.states is not None, "the head says with needs_text_states that it reads them"
        fusion = Fusion(self.crosses, audio, audio_rows)
        x = fusion.run(self.blocks, text.states, text.mask)
        logits: Tensor = self.classifier(x[:, 0])
        return logits
