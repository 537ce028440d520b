"""Configuration of the BERT text encoder."""

from __future__ import annotations

from dataclasses import dataclass

from atr_moco_plugin.errors import InputError


@dataclass(kw_only=True)
class BertConfig:
    """Architecture, dropouts and starting weights; the defaults are BERT-base, uncased.

    Raises:
        ValueError: a size is not positive, the width is no multiple of the heads, a dropout is
            outside [0, 1), or ``sha256`` is no digest or has no ``pretrained`` beside it.
    """

    vocab_size: int = 30522
    """Number of word pieces."""

    hidden_size: int = 768
    """Width of the token states."""

    num_hidden_layers: int = 12
    """Number of layers, before any fusion head takes the upper ones."""

    num_attention_heads: int = 12
    """Heads of every attention; divides ``hidden_size``."""

    intermediate_size: int = 3072
    """Inner width of the feed-forward blocks."""

    max_position_embeddings: int = 512
    """Longest caption in word pieces, ``[CLS]`` and ``[SEP]`` included."""

    type_vocab_size: int = 2
    """Rows of the token-type table. Only row 0 is used; the rest is kept so public weights fit."""

    hidden_dropout_prob: float = 0.1
    """Dropout of the embeddings and of every residual branch."""

    attention_probs_dropout_prob: float = 0.1
    """Dropout of the attention weights."""

    initializer_range: float = 0.02
    """Standard deviation of random weights. Narrow encoders trained from scratch want more, about
    ``hidden_size ** -0.5``."""

    layer_norm_eps: float = 1e-12
    """Epsilon of every layer norm."""

    pad_token_id: int = 0
    """Id of ``[PAD]``: its embedding starts at zero and is never trained."""

    pretrained: str | None = None
    """Where the weights come from: a local folder with ``config.json`` beside ``model.safetensors``
    or ``pytorch_model.bin``, the name of an installed pip package that carries such a folder, or a
    Hugging Face model name. The architecture then comes from that ``config.json``, and only the two
    dropouts and ``sha256`` are taken from here. ``None`` means random weights."""

    sha256: str | None = None
    """Expected SHA-256 of the weights file, as 64 hexadecimal digits; ``None`` skips the check."""

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            if getattr(self, name) < 1:
                raise InputError(
                    f"BertConfig.{name} must be at least 1, but is {getattr(self, name)}."
                )
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"BertConfig.hidden_size ({self.hidden_size}) must be a multiple of "
                f"num_attention_heads ({self.num_attention_heads})."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(
                    f"BertConfig.{name} must be at least 0 and below 1, "
                    f"but is {getattr(self, name)}."
                )
        if not self.layer_norm_eps > 0.0:
            raise InputError(
                f"BertConfig.layer_norm_eps must be above 0, but is {self.layer_norm_eps}."
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise InputError(
                f"BertConfig.pad_token_id must be an id below vocab_size ({self.vocab_size}), "
                f"but is {self.pad_token_id}."
            )
        if self.sha256 is not None:
            if self.pretrained is None:
                raise InputError(
                    "BertConfig.sha256 is the digest of a weights file: set pretrained as well, "
                    "or leave sha256 out."
                )
            if len(self.sha256) != 64 or set(self.sha256.lower()) - set("0123456789abcdef"):
                raise InputError(
                    f"BertConfig.sha256 must be 64 hexadecimal digits, but is {self.sha256!r}."
                )
