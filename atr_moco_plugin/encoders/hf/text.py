"""A text encoder of the transformers library."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.causal import begin_alike, padding_changes, states_of_two
from atr_moco_plugin.encoders.hf.checkpoint import build, load, model_config, plain_config
from atr_moco_plugin.encoders.hf.config import HfTextConfig
from atr_moco_plugin.encoders.hf.encoder import HfEncoder, padding_id
from atr_moco_plugin.encoders.positions import first_position
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import TextTokens


class HfTextEncoder(HfEncoder):
    """Any text encoder of the transformers library, entry point ``hf_text``.

    Of an encoder-decoder, such as T5, it is the encoder. Dropout is that of the checkpoint.

    Args:
        model: the transformers model.
        config: the options, with the whole ``architecture``.

    Attributes:
        config: the options.
        causal: whether a token sees none of the tokens after it, as in GPT. The first one then says
            nothing of a caption.

    Raises:
        InputError: the model takes no ids, returns no states of tokens, or lets padding change a
            caption's states.

    Example::

        encoder = HfTextEncoder.from_config(HfTextConfig(pretrained="xlm-roberta-base")).eval()
        text = encoder(input_ids, mask)     # TextTokens
    """

    config_class = HfTextConfig
    vocabulary_option = "architecture.vocab_size"

    def __init__(self, model: nn.Module, config: HfTextConfig) -> None:
        super().__init__(model)
        self.config = config
        self._longest = config.max_position_embeddings
        if self._longest is not None:
            self._longest -= first_position(model)
        if self.model.main_input_name != "input_ids":
            self._refuse(f"takes {self.model.main_input_name}")
        if config.vocab_size is None:
            self._refuse("has no vocabulary of its own")
        self._pad = padding_id(self.model.config, config.vocab_size)
        self.causal = self._asked()

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
        """Where the tokenizer is that the weights were trained with; ``None`` for random ones."""
        return self.config.pretrained

    def forward(self, input_ids: Tensor, mask: Tensor) -> TextTokens:
        """Encode captions.

        Args:
            input_ids: ``[B, L]`` int64, padded on the right with any id.
            mask: ``[B, L]`` bool, ``True`` where a token is of the caption. States of the other
                tokens are finite but mean nothing.

        Returns:
            States ``[B, L, width]`` with ``mask`` and ``input_ids`` as given.

        Raises:
            ValueError: shapes or dtypes differ from the above, or L exceeds the positions.
        """
        self._check(input_ids, mask)
        # RoBERTa counts positions by what is not padding, which therefore has to be its own.
        ids = input_ids.masked_fill(~mask, self._pad)
        found = self.model(input_ids=ids, attention_mask=mask.to(torch.int64))
        return TextTokens(found.last_hidden_state, mask, input_ids)

    def _check(self, input_ids: Tensor, mask: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.shape != mask.shape or mask.dtype != torch.bool:
            raise ValueError(
                "The text encoder expects input_ids and a bool mask of one shape [B, L], but got "
                f"{list(input_ids.shape)} and {list(mask.shape)} {mask.dtype}."
            )
        if self._longest is not None and input_ids.shape[1] > self._longest:
            raise ValueError(
                f"A caption of {input_ids.shape[1]} tokens is longer than the {self._longest} that "
                "the text encoder has positions for; truncate it when tokenizing."
            )

    def _asked(self) -> bool:
        """Whether the model is causal; refuses one that cannot be used."""
        states, changes = None, False
        vocab_size = self.model.config.vocab_size
        try:
            states = states_of_two(self.model, vocab_size)
            if states is not None:
                changes = padding_changes(self.model, vocab_size, self._longest)
        except Exception as error:  # whatever layers raise for sizes that make no sense
            self._refuse(f"fails with {type(error).__name__}: {' '.join(str(error).split())}")
        if not isinstance(states, Tensor) or states.shape != (2, 2, self.width):
            self._refuse("does not return a state for each token")
        if changes:
            self._refuse("lets padding, or chance, change a caption's states")
        return begin_alike(states)

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(
            f"The text encoder hf_text cannot use a {self.model.config.model_type}, which "
            f"{reason}; give a model that makes states of a caption's tokens, such as "
            "sentence-transformers/paraphrase-multilingual-mpnet-base-v2."
        )
