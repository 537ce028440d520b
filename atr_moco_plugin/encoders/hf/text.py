"""A text encoder of the transformers library."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.checkpoint import build, load, model_config, plain_config
from atr_moco_plugin.encoders.hf.config import HfTextConfig
from atr_moco_plugin.encoders.hf.encoder import HfEncoder
from atr_moco_plugin.tokens import TextTokens


class HfTextEncoder(HfEncoder):
    """Any text encoder of the transformers library, entry point ``hf_text``.

    Of an encoder-decoder such as T5 it is the encoder. Dropout is that of the checkpoint.

    Args:
        model: the transformers model.
        config: the options, with the whole ``architecture``.

    Example::

        encoder = HfTextEncoder.from_config(HfTextConfig(pretrained="xlm-roberta-base")).eval()
        text = encoder(input_ids, mask)     # TextTokens
    """

    config_class = HfTextConfig
    vocabulary_option = "architecture.vocab_size"

    def __init__(self, model: nn.Module, config: HfTextConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.width = int(self.model.config.hidden_size)
        self._pad = self.model.config.pad_token_id or 0

    @classmethod
    def from_config(cls, config: HfTextConfig) -> HfTextEncoder:
        """Build the encoder, with the weights of ``config.pretrained`` if it is set.

        Raises:
            FileNotFoundError: ``config.pretrained`` is found in none of the three places.
            InputError: its files cannot be read, lack some of the encoder, or are of no text
                encoder.
        """
        own = model_config(config.pretrained, config.architecture)
        if config.pretrained is None:
            model = build(own)
        else:
            model = load(config.pretrained, own, config.sha256)
        return cls(model, replace(config, architecture=plain_config(own)))

    @property
    def tokenizer_source(self) -> str | None:
        """Where the tokenizer that the weights were trained with is."""
        return self.config.pretrained

    def forward(self, input_ids: Tensor, mask: Tensor) -> TextTokens:
        """Encode captions.

        Args:
            input_ids: ``[B, L]`` int64.
            mask: ``[B, L]`` bool, ``True`` where a token is of the caption, padding on the right.

        Returns:
            States ``[B, L, width]`` with ``mask`` and ``input_ids`` as given.
        """
        # RoBERTa counts positions by what is not padding, so padding has to be its own.
        ids = input_ids.masked_fill(~mask, self._pad)
        states = self.model(input_ids=ids, attention_mask=mask.to(torch.int64)).last_hidden_state
        return TextTokens(states, mask, input_ids)
