"""Any encoders of transformers as the two towers of a retrieval model; those of a ``ClapModel`` are
in :mod:`atr_moco_plugin.model.clap`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from atr_moco_plugin.encoders.hf.causal import begin_alike, padding_changes, states_of_two
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.clap import EncoderTower, TextEncoderTower, audio_tokens
from atr_moco_plugin.tokens import AudioTokens, TextTokens


class AudioModelTower(EncoderTower):
    """Any audio model of transformers that returns ``last_hidden_state``, mean-pooled.

    All clips of a batch must fill their features, as they do in spectrogram models whose feature
    extractor cuts and pads to one length (AST, Whisper's encoder): there is no mask.

    Args:
        encoder: its first argument are the features.
        embed_dim: size d of the embedding; the projection to it is new.
        width: channels of the tokens; ``None`` reads ``encoder.config.hidden_size``.
    """

    def __init__(self, encoder: nn.Module, embed_dim: int, width: int | None = None) -> None:
        width = _hidden_size(encoder) if width is None else width
        super().__init__(encoder, nn.Linear(width, embed_dim), width)

    def forward(
        self,
        input_features: Tensor | None = None,
        *,
        tokens: AudioTokens | None = None,
        pooled: Tensor | None = None,
    ) -> tuple[Tensor, AudioTokens]:
        """Encode clips.

        Args:
            input_features: the encoder's features, ``[B, ...]`` float.
            tokens: from :meth:`prepare`, in place of features; ``None`` where nobody reads them.
            pooled: ``[B, width]``, from :meth:`prepare`.
        """
        return self._embed(tokens, pooled, input_features)

    def _encode(self, input_features: Tensor) -> tuple[AudioTokens, Tensor]:
        tokens = audio_tokens(self.encoder(input_features).last_hidden_state)
        return tokens, tokens.states.mean(dim=1)


class TextModelTower(TextEncoderTower):
    """Any text model of transformers that returns ``last_hidden_state``, by its first token.

    Args:
        encoder: called with ``input_ids`` and ``attention_mask``.
        embed_dim: size d of the embedding; the projection to it is new.
        width: channels of the tokens; ``None`` reads ``encoder.config.hidden_size``.

    Raises:
        InputError: the encoder is causal, as GPT is, so that its first token has seen no other, or
            lets padding change a caption's states, as ConvBERT does.
    """

    def __init__(self, encoder: nn.Module, embed_dim: int, width: int | None = None) -> None:
        width = _hidden_size(encoder) if width is None else width
        causal, padding_tells = _asked(encoder)
        if causal:
            raise InputError(
                f"The first token of {type(encoder).__name__} has seen none of the others, so that "
                "captions that begin alike would have one embedding: take a text model that reads "
                "both ways, such as BERT or RoBERTa, or write a tower that pools another token."
            )
        if padding_tells:
            raise InputError(
                f"{type(encoder).__name__} lets padding, or chance, change a caption's states: "
                "take a text model that leaves padding out, such as BERT or RoBERTa."
            )
        super().__init__(encoder, nn.Linear(width, embed_dim), width)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[TextTokens, Tensor]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        tokens = TextTokens(states, attention_mask.bool(), input_ids)
        return tokens, states[:, 0]


def _asked(encoder: Any) -> tuple[bool, bool]:
    """Whether an encoder is causal, and whether padding changes its states; False where it cannot
    be asked: its first batch says why."""
    config = getattr(encoder, "config", None)
    if getattr(config, "attention_type", "original_full") != "original_full":
        # BigBird's, which a short batch would switch to another attention for good
        return False, False
    found = []
    for ask in (lambda *x: begin_alike(states_of_two(*x)), padding_changes):
        try:
            found.append(ask(encoder, encoder.config.vocab_size))
        except Exception:  # whatever layers raise for sizes or devices that they are not made for
            found.append(False)
    causal, padding_tells = found
    return causal, padding_tells


def _hidden_size(encoder: Any) -> int:
    return int(encoder.config.hidden_size)
