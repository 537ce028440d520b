"""Reading public BERT checkpoints: the only file that knows their names."""

from __future__ import annotations

import json
import re
from pathlib import Path

from torch import Tensor

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.encoders.bert.config import BertConfig
from atr_moco_plugin.encoders.weights import check_state, read_weights
from atr_moco_plugin.errors import InputError

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
# Fields of config.json that change the computation, with the one value implemented here.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}

_PREFIX = "bert."
# Pooler and pre-training heads are no part of a text encoder; the two buffers are constants.
_IGNORED = re.compile(r"pooler\.|cls\.|embeddings\.(position_ids|token_type_ids)$")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.LayerNorm": "embeddings.norm",
}
LAYER_PARTS = {
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
        InputError: the file is no JSON object, a size is missing or invalid, or it describes
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


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a public BERT state dict under the names of :class:`BertEncoder`.

    Accepts the names with and without the prefix ``bert.``, and ``gamma``/``beta`` for a layer
    norm's weight and bias. Pooler and pre-training heads are left out. An unknown name is kept as
    it is, so that the message on weights that do not fit shows it.

    Raises:
        InputError: the file cannot be read without running code from it, or holds other things
            than tensors.
    """
    content, _ = read_weights(path, "BERT weights")
    if isinstance(content, dict):
        content = {name: x for name, x in content.items() if not _is_ignored(name)}
    return {_translate(name): tensor for name, tensor in check_state(content, path).items()}


def _is_ignored(name: object) -> bool:
    return isinstance(name, str) and bool(_IGNORED.match(name.removeprefix(_PREFIX)))


def _translate(name: str) -> str:
    plain = name.removeprefix(_PREFIX)
    plain = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", plain))
    if (layer := _LAYER.match(plain)) and layer[2] in LAYER_PARTS:
        return f"layers.{layer[1]}.{LAYER_PARTS[layer[2]]}.{layer[3]}"
    module, _, kind = plain.rpartition(".")
    return f"{EMBEDDINGS[module]}.{kind}" if module in EMBEDDINGS else name
