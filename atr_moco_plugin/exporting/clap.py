"""A retriever of the kind ``clap`` as a plain ``ClapModel`` of transformers."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import ClapConfig, ClapModel, ClapProcessor, RobertaTokenizerFast

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.atomic import new_folder
from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.retriever.bundle import save_part
from atr_moco_plugin.retriever.loaded_model import same_again

PARTS = {
    "audio_model": "audio.encoder",
    "audio_projection": "audio.projection",
    "text_model": "text.encoder",
    "text_projection": "text.projection",
}
"""Modules of a ``ClapModel`` to those of its towers."""


def export_clap(retriever: AudioTextRetriever, folder: str | Path) -> None:
    """Write a folder that ``ClapModel.from_pretrained`` and ``ClapProcessor.from_pretrained`` load.

    transformers 4 has no processor for tokenizers other than RoBERTa's: take ``AutoTokenizer`` and
    ``ClapFeatureExtractor`` there. Both logit scales are the inverse of the trained temperature,
    and the tokenizer's ``model_max_length`` is the bundle's ``max_tokens``. A ``ClapModel`` has no
    matching head, which is left out, and no windows: others than its feature extractor's are warned
    of.

    Args:
        retriever: of a ``ClapModel``, or of a bundle of the kind ``clap``.
        folder: not there yet, or empty.

    Raises:
        InputError: for a model that is no ``ClapModel``, or a folder that holds something.
    """
    backbone = same_again(retriever)
    config = backbone.config
    if config.kind != "clap":
        names = " and ".join(repr(config.model[part]["name"]) for part in ("audio", "text"))
        raise InputError(
            f"This model has the encoders {names}, and only a ClapModel can be written as one: "
            "use `--to onnx` or `--to sentence-transformers`."
        )
    if config.distance is not None:
        raise InputError(
            f"{retriever.name} ranks by a learned distance, which a ClapModel cannot hold: use "
            "`--to onnx` or `--to sentence-transformers`."
        )
    own = float(backbone.feature_extractor.max_length_s)
    if (config.window_seconds, config.hop_seconds) != (own, own):
        warnings.warn(
            f"{retriever.name} has windows of {config.window_seconds:g} s, one every "
            f"{config.hop_seconds:g} s, which a ClapModel cannot hold: {folder} has its feature "
            f"extractor's {own:g} s, so the embeddings of longer sounds differ.",
            stacklevel=2,
        )
    with torch.random.fork_rng([]):  # random weights are drawn, and replaced
        clap = ClapModel(ClapConfig.from_dict(dict(config.model["clap"])))
    for name, place in PARTS.items():
        tower = backbone.model.get_submodule(place)
        clap.get_submodule(name).load_state_dict(tower.state_dict())
    with torch.no_grad():
        for scale in (clap.logit_scale_a, clap.logit_scale_t):
            scale.fill_(math.log(1 / config.temperature))
    with new_folder(folder) as new:
        clap.save_pretrained(new)
        # Newer versions write the two into one file. Both forms load in any version so.
        backbone.tokenizer.model_max_length = config.max_tokens
        save_part(backbone.tokenizer, new)
        save_part(backbone.feature_extractor, new)
        if isinstance(backbone.tokenizer, RobertaTokenizerFast):  # ClapProcessor takes no other
            make: Any = ClapProcessor
            make(backbone.feature_extractor, backbone.tokenizer).save_pretrained(new)
