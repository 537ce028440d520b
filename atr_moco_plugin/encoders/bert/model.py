"""BERT as a text encoder.

Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding*
(2019). The encoder holds no fusion weight, so that its momentum copy holds none either; a matching
head owns the cross-attentions and passes them in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from atr_moco_plugin.config import as_loaded
from atr_moco_plugin.encoders.bert.config import BertConfig
from atr_moco_plugin.encoders.bert.layers import (
    BertEmbeddings,
    BertLayer,
    BertStates,
    Fusion,
    init_bert_weights,
)
from atr_moco_plugin.encoders.bert.pretrained import read_config, read_state
from atr_moco_plugin.encoders.bert.sources import CONFIG_FILE, find_weights
from atr_moco_plugin.encoders.weights import load
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import TextTokens

_OWN = ("hidden_dropout_prob", "attention_probs_dropout_prob", "pretrained", "sha256")
"""Options that a user chooses for a pretrained model."""


class BertEncoder(nn.Module):
    """BERT without pooler and language-model head.

    The constructor draws random weights; :meth:`from_config` and :meth:`from_pretrained` load.

    Attributes:
        config: the configuration; ``num_hidden_layers`` counts the layers before any
            :meth:`split`.
        width: width of the token states.

    Example::

        encoder = BertEncoder.from_pretrained("bert-base-uncased").eval()
        text = encoder(input_ids, mask)     # TextTokens
        text.states[:, 0]                   # the [CLS] states, [B, width]
    """

    config_class = BertConfig
    weights_option = "pretrained"

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.hidden_size
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        init_bert_weights(self, config.initializer_range)

    @classmethod
    def from_config(cls, config: BertConfig) -> BertEncoder:
        """Build the encoder of ``config`` and load ``config.pretrained``, if it is set.

        Raises:
            FileNotFoundError: ``config.pretrained`` is found in none of the three places.
            InputError: its ``config.json`` or weights do not describe a BERT, do not fit each
                other, or have another digest than ``config.sha256``.
        """
        if config.pretrained is None:
            return cls(config)
        weights = find_weights(config.pretrained, config.sha256)
        loaded = read_config(weights.with_name(CONFIG_FILE))
        return cls._load(as_loaded(config, loaded, _OWN, repr(config.pretrained)), weights)

    @classmethod
    def from_pretrained(cls, name_or_path: str) -> BertEncoder:
        """Load a local folder, an installed package or a Hugging Face model by name.

        Unlike :meth:`from_config`, the dropouts come from the checkpoint too.

        Raises:
            FileNotFoundError, InputError: as :meth:`from_config`.
        """
        weights = find_weights(name_or_path)
        config = read_config(weights.with_name(CONFIG_FILE))
        return cls._load(replace(config, pretrained=name_or_path), weights)

    @classmethod
    def _load(cls, config: BertConfig, weights: Path) -> BertEncoder:
        return load(
            lambda: cls(config),
            read_state(weights),
            weights,
            layers=config.num_hidden_layers,
            config=f"its {CONFIG_FILE}",
        )

    def forward(self, input_ids: Tensor, mask: Tensor, fusion: Fusion | None = None) -> TextTokens:
        """Encode captions, text-only unless a matching head asks for a fusion pass.

        Args:
            input_ids: ``[B, L]`` int64 word-piece ids.
            mask: ``[B, L]`` bool, ``True`` where a token is of the caption. States of the other
                tokens are finite but mean nothing.
            fusion: the clips of the captions and a cross-attention for each layer. The fusion pass
                is a call of the encoder, so that hooks and sharding see it.

        Returns:
            States ``[B, L, width]`` with ``mask`` and ``input_ids`` as given.

        Raises:
            ValueError: shapes or dtypes differ from the above, or L exceeds
                ``max_position_embeddings``.
        """
        self._check(input_ids, mask)
        x = self.embeddings(input_ids)
        if fusion is not None:
            return TextTokens(fusion.run(self.layers, x, mask), mask, input_ids)
        for layer in self.layers:
            x = layer(x, mask)
        return TextTokens(x, mask, input_ids)

    def lower(self, input_ids: Tensor, mask: Tensor, *, layers: int) -> BertStates:
        """The first part of a text-only pass, for lowest layers that are frozen. They and the
        embeddings are in eval mode if the caller has them so.

        Args:
            input_ids: as of :meth:`forward`.
            mask: as of :meth:`forward`.
            layers: how many of the lowest layers to run.

        Raises:
            ValueError: as :meth:`forward`.
        """
        self._check(input_ids, mask)
        x = self.embeddings(input_ids)
        for layer in self.layers[:layers]:
            x = layer(x, mask)
        return BertStates(x, mask, input_ids, layers)

    def upper(self, lower: BertStates) -> TextTokens:
        """The rest of a text-only pass.

        Args:
            lower: from :meth:`lower`, of this encoder or one with the same lowest layers.
        """
        x = lower.states.to(self.embeddings.norm.weight.dtype)
        for layer in self.layers[lower.layers :]:
            x = layer(x, lower.mask)
        return TextTokens(x, lower.mask, lower.input_ids)

    def split(self, at: int) -> nn.ModuleList:
        """Remove the layers from index ``at`` on and return them.

        Text-only states then come from the ``at`` lower layers. Make momentum copies afterwards.

        Raises:
            InputError: either part would be empty.
        """
        if not 1 <= at < len(self.layers):
            raise InputError(
                f"A text encoder of {len(self.layers)} layers cannot be split at layer {at}: "
                "both parts need at least one layer."
            )
        upper = self.layers[at:]
        self.layers = self.layers[:at]
        return upper

    def _check(self, input_ids: Tensor, mask: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.shape != mask.shape:
            raise ValueError(
                "The text encoder expects input_ids and mask of one shape [B, L], but got "
                f"{list(input_ids.shape)} and {list(mask.shape)}."
            )
        if mask.dtype != torch.bool:
            raise ValueError(f"The text encoder expects a bool mask, but got {mask.dtype}.")
        limit = self.config.max_position_embeddings
        if input_ids.shape[1] > limit:
            raise ValueError(
                f"A caption of {input_ids.shape[1]} tokens is longer than the text encoder's "
                f"max_position_embeddings ({limit}); truncate it when tokenizing."
            )
