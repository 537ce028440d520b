"""Configuration of the BERT text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.encoders.weights import digest_problems


@dataclass(kw_only=True)
class BertConfig(Config):
    """Architecture, dropouts and starting weights; the defaults are BERT-base, uncased.

    Raises:
        InputError: a size is not positive, the width is no multiple of the heads, a dropout is
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

    def problems(self) -> Iterator[str]:
        yield from in_range(
            self,
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            least=1,
        )
        yield from in_range(
            self, "hidden_dropout_prob", "attention_probs_dropout_prob", least=0, below=1
        )
        yield from in_range(self, "layer_norm_eps", above=0)
        if self.hidden_size % self.num_attention_heads:
            yield (
                f"`hidden_size` is {self.hidden_size}, expected a multiple of "
                f"`num_attention_heads`, {self.num_attention_heads}."
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            yield (
                f"`pad_token_id` is {self.pad_token_id}, expected an id below `vocab_size`, "
                f"{self.vocab_size}."
            )
        yield from digest_problems(self.sha256, self.pretrained)
