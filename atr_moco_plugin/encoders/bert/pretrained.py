"""Reading public BERT checkpoints: the only file that knows their names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.encoders.bert.config import BertConfig
from atr_moco_plugin.encoders.weights import is_weights, one_line
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import read_torch

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
# Absent from the config.json of early checkpoints, which then mean the defaults of BertConfig.
_OPTIONAL = (
    "initializer_range",
    "type_vocab_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "pad_token_id",
)
# Fields of config.json that change what is computed, with the one value implemented here.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}

_PREFIX = "bert."
# Pooler and pre-training heads are no part of a text encoder; the two buffers are constants.
_IGNORED = re.compile(r"pooler\.|cls\.|embeddings\.(position_ids|token_type_ids)$")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
_EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.LayerNorm": "embeddings.norm",
}
_LAYER_PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "ffn_in",
    "output.dense": "ffn_out",
    "output.LayerNorm": "ffn_norm",
}


def read_config(path: Path) -> BertConfig:
    """Read the architecture from a public ``config.json``.

    Raises:
        ValueError: the file is no JSON object, a size is missing or invalid, or it describes
            another model than a BERT with exact GELU and absolute positions.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: save the model's config again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object with the sizes of a BERT model.")
    for name, value in _FIXED.items():
        if content.get(name, value) != value:
            raise InputError(
                f"{path} has {name} '{content[name]}' where only '{value}' is supported: "
                "give a BERT checkpoint."
            )
    missing = [name for name in _REQUIRED if name not in content]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: give the config.json of a BERT.")
    known = {name: content[name] for name in (*_REQUIRED, *_OPTIONAL) if name in content}
    try:
        return build_config(BertConfig, known, "config")
    except InputError as error:
        raise InputError(f"{path} does not describe a BERT model: {error}") from error


def merge_config(user: BertConfig, checkpoint: BertConfig) -> BertConfig:
    """Architecture of ``checkpoint`` with the dropouts and source of ``user``.

    Raises:
        ValueError: ``user`` sets an architecture field to something else than the checkpoint has.
    """
    own = ("hidden_dropout_prob", "attention_probs_dropout_prob", "pretrained", "sha256")
    for field in fields(BertConfig):
        wish, fact = getattr(user, field.name), getattr(checkpoint, field.name)
        if field.name not in own and wish != fact and wish != field.default:
            raise InputError(
                f"BertConfig.{field.name} is {wish} but '{user.pretrained}' has {fact}: leave it "
                "out, for the architecture comes from the pretrained model."
            )
    return replace(checkpoint, **{name: getattr(user, name) for name in own})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a public BERT state dict under the names of :class:`BertEncoder`.

    Accepts the names with and without the prefix ``bert.``, and ``gamma``/``beta`` for a layer
    norm's weight and bias. Pooler and pre-training heads are left out; a name unknown here is kept
    as it is, for :func:`check_fits` to report.

    Raises:
        ValueError: the file cannot be read without running code from it, or holds other things
            than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = read_torch(path)
    except Exception as error:  # the restricted unpickler lets through whatever garbage causes
        raise InputError(
            f"{path} is damaged or is no plain weights file: save the model's state dict again."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in state.items()
    ):
        raise InputError(f"{path} must hold a state dict, that is, tensors by name.")
    kept = {
        _translate(name): tensor
        for name, tensor in state.items()
        if not _IGNORED.match(name.removeprefix(_PREFIX))
    }
    strange = sorted(name for name, tensor in kept.items() if not is_weights(tensor))
    if strange:
        raise InputError(f"{path} has no plain numbers for {_list(strange)}.")
    return kept


def _translate(name: str) -> str:
    plain = name.removeprefix(_PREFIX)
    plain = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", plain))
    if (layer := _LAYER.match(plain)) and layer[2] in _LAYER_PARTS:
        return f"layers.{layer[1]}.{_LAYER_PARTS[layer[2]]}.{layer[3]}"
    module, _, kind = plain.rpartition(".")
    return f"{_EMBEDDINGS[module]}.{kind}" if module in _EMBEDDINGS else name


def check_fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Check that ``state``, read from ``path``, has exactly the names and shapes of ``own``.

    Raises:
        ValueError: names are missing or unexpected, or a shape differs.
    """
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit the BERT of its config.json: missing {_list(missing)}, "
            f"unexpected {_list(unexpected)}; give the weights of a plain BERT."
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{path} has {name} of shape {list(tensor.shape)} where its config.json says "
                f"{list(own[name].shape)}: give weights and config.json of one model."
            )


def _list(names: list[str]) -> str:
    names = [one_line(name) for name in names]
    if len(names) > 5:
        return f"{', '.join(names[:5])} and {len(names) - 5} more"
    return ", ".join(names) or "none"
