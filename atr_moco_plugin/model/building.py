"""Building a retrieval model from named parts, and the options that build it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.adapters import add_adapters, check_used
from atr_moco_plugin.model.config import (
    AdapterConfig,
    EncoderConfig,
    PartConfig,
    RetrievalModelConfig,
)
from atr_moco_plugin.model.freezing import freeze_encoder, is_adapted
from atr_moco_plugin.model.patch_dropout import check_trains
from atr_moco_plugin.model.retrieval_model import RetrievalModel
from atr_moco_plugin.model.text_tower import TextTower
from atr_moco_plugin.model.towers import AudioTower
from atr_moco_plugin.plugins import load, load_complete
from atr_moco_plugin.tensors.internals import unwrapped_name


def build_model(config: RetrievalModelConfig) -> RetrievalModel:
    """Build a model from named parts, each read through its entry point.

    Args:
        config: names and options. A part's options are checked by its own ``config_class``.

    Returns:
        The model, with pretrained weights where a part's options name some.

    Raises:
        InputError: for an unknown part, an unknown option or a bad value, naming the key.
    """
    model = build_plain_model(config)
    adapt_model(model)
    return model


def build_plain_model(config: RetrievalModelConfig) -> RetrievalModel:
    """The same without the adapters of ``config``, for a host that loads plain weights by their
    names and then calls :func:`adapt_model`."""
    audio_class, audio_config = _part("audio_encoders", config.audio, "model.audio")
    text_class, text_config = _part("text_encoders", config.text, "model.text")
    head_class, head_config = _part("heads", config.head, "model.head")
    audio_encoder = audio_class.from_config(audio_config)
    text_encoder = text_class.from_config(text_config)
    # Before the text tower: an ALBEF head takes the upper layers out of the text encoder.
    head = head_class(text_encoder, audio_encoder.width, head_config)
    audio = AudioTower(
        audio_encoder,
        config.embed_dim,
        config.audio_pooling,
        config.spec_augment,
        config.patch_dropout,
    )
    text = TextTower(text_encoder, config.embed_dim, config.text_pooling)
    freeze_encoder(audio, config.audio.freeze, "model.audio.freeze")
    freeze_encoder(text, config.text.freeze, "model.text.freeze")
    if config.patch_dropout is not None:
        check_trains(audio)
    model = RetrievalModel(audio, text, head)
    model.config = config
    return model


def adapt_model(model: RetrievalModel) -> None:
    """Give a model of :func:`build_plain_model` the adapters that its configuration asks for.

    Raises:
        InputError: as :func:`~atr_moco_plugin.model.add_adapters`, or if an encoder uses the
            weights of an adapted layer without calling it.
    """
    config = model.config
    assert config is not None, "a built model has one"
    if config.audio.adapter is not None:
        add_adapters(model.audio, config.audio.adapter, "model.audio.adapter")
        check_used(model.audio, _silence(model.audio.encoder), "model.audio.adapter")
    if config.text.adapter is not None:
        add_adapters(model.text, config.text.adapter, "model.text.adapter")
        check_used(model.text, _caption(model.text.encoder), "model.text.adapter")
    model.note_frozen()


def built_config(config: RetrievalModelConfig, model: RetrievalModel) -> RetrievalModelConfig:
    """The configuration that builds the same architecture without any file: with the sizes that
    came with pretrained weights, and without the place that the weights came from. Nothing is
    frozen and no token dropped in it: these are choices of a run, not of a model. Adapters stay
    beside the layers that have them, also where others were frozen.

    Args:
        config: what ``model`` was built with.
        model: the model.
    """
    return replace(
        config,
        audio=_built_part("audio_encoders", config.audio, model.audio),
        text=_built_part("text_encoders", config.text, model.text),
        patch_dropout=None,
    )


def _built_part(group: str, part: EncoderConfig, tower: Any) -> EncoderConfig:
    own = getattr(tower.encoder, "config", None)
    sizes = asdict(own) if is_dataclass(own) and not isinstance(own, type) else part.config
    return replace(
        part,
        config=without_weights(group, part.name, sizes),
        freeze="none",
        adapter=_placed_adapter(part, tower.encoder),
    )


def _placed_adapter(part: EncoderConfig, encoder: nn.Module) -> AdapterConfig | None:
    """The adapter of an encoder; where frozen layers have none, by the names of those that do."""
    if part.adapter is None or part.freeze == "none":
        return part.adapter
    named = [unwrapped_name(x) for x, module in encoder.named_modules() if is_adapted(module)]
    lora = part.adapter.lora
    return replace(part.adapter, lora=replace(lora, targets=named or lora.targets))


def without_weights(group: str, name: str, options: Mapping[str, object]) -> dict[str, object]:
    """Options of an encoder without the place of its pretrained weights.

    Args:
        group: ``audio_encoders`` or ``text_encoders``.
        name: the encoder's entry-point name.
        options: its options.
    """
    source = getattr(load(group, name), "weights_option", None)
    return {k: v for k, v in options.items() if source is None or k not in (source, "sha256")}


def _silence(encoder: Any) -> dict[str, Tensor]:
    """A clip that is long enough for an audio encoder."""
    seconds = max(getattr(encoder, "min_seconds", 0.0), 1.0)
    device = next(encoder.parameters()).device
    return {"waveforms": torch.zeros(1, math.ceil(seconds * encoder.sample_rate), device=device)}


def _caption(encoder: Any) -> dict[str, Tensor]:
    """A caption of four tokens."""
    ids = torch.ones(1, 4, dtype=torch.int64, device=next(encoder.parameters()).device)
    return {"input_ids": ids, "mask": ids.bool()}


def _part(group: str, part: PartConfig, where: str) -> tuple[Any, Any]:
    """The class of a part and its checked options."""
    try:
        part_class = load_complete(group, part.name)
    except InputError as ex:
        raise InputError(f"`{where}.name`: {ex}") from ex
    return part_class, build_config(part_class.config_class, part.config, f"{where}.config")
