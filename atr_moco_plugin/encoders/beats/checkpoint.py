"""BEATs checkpoint files: content, official names, and messages on bad files. Those of OpenBEATs
are recognised by their content."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.encoders.beats import openbeats
from atr_moco_plugin.encoders.weights import check_state, fetch, listed, read_weights, verify
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.paths import expanded

_MODEL = "model."
_HUB = "hf://"
_SHARED_BIAS = "encoder.relative_attention_bias.weight"
_LAYER_BIAS = "self_attn.relative_attention_bias.weight"
_TO_OFFICIAL = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
_FROM_OFFICIAL = {official: ours for ours, official in _TO_OFFICIAL.items()}


class BeatsCheckpoint(NamedTuple):
    """The content of an official checkpoint file, or of one of OpenBEATs as if it were one.

    Attributes:
        cfg: The official configuration.
        model: Parameters under their official names.
    """

    cfg: dict[str, Any]
    model: dict[str, Tensor]


def read_checkpoint(path: str | Path, sha256: str | None = None) -> BeatsCheckpoint:
    """Read an official checkpoint without running code from it.

    Args:
        path: A PyTorch file ``{"cfg": ..., "model": ...}`` as released, the cfg a dict or an
            ``argparse.Namespace``, or a ``.safetensors`` file with the cfg as JSON in its metadata
            under ``cfg`` and names under ``model.``. For OpenBEATs also weights with ESPnet's
            ``config.yaml`` beside them, or the folder of both. A string ``hf://OWNER/REPO/FILE`` or
            ``hf://OWNER/REPO`` is fetched from the Hugging Face Hub or its cache.
        sha256: Expected SHA-256 of the file in hexadecimal, or ``None`` to accept any.

    Raises:
        FileNotFoundError: If ``path`` is not a file, or the hub cannot give it.
        InputError: If the digest differs, or the file is unreadable or not of a BEATs encoder.
    """
    name = str(path)
    file, find_config = _on_the_hub(name) if name.startswith(_HUB) else _here(path)
    verify(file, sha256)
    # Files that were saved with the configuration of the training script hold a Namespace.
    content, metadata = read_weights(file, "a BEATs checkpoint", [Namespace])
    if file.suffix == ".safetensors":
        content = _from_safetensors(file, content, metadata)
    return _checked(file, openbeats.as_official(content, file, find_config, name))


def official_name(name: str) -> str:
    """The official name of a parameter of ``BeatsEncoder``."""
    return _TO_OFFICIAL.get(name, name)


def from_official(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under the names of ``BeatsEncoder``, the relative attention bias once.

    Raises:
        InputError: If the relative attention bias differs between layers.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in model.items():
        if not name.endswith(_LAYER_BIAS):
            state[_FROM_OFFICIAL.get(name, name)] = tensor
        elif not _equal(state.setdefault(_SHARED_BIAS, tensor), tensor):
            raise InputError(
                f"{listed([name])} differs from other layers' tensor; BEATs' layers share one."
            )
    return state


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _here(path: str | Path) -> tuple[Path, openbeats.FindConfig]:
    """A local checkpoint, and how to find ESPnet's configuration of it."""
    path = expanded(path, "checkpoint")
    if path.is_dir():
        return openbeats.find_weights(path), lambda: openbeats.find_config(path)
    if not path.is_file():
        raise MissingFileError(
            f"There is no BEATs checkpoint at {path}; download one of the official BEATs or "
            "OpenBEATs models and give its local path."
        )
    return path, lambda: openbeats.config_beside(path)


def _on_the_hub(name: str) -> tuple[Path, openbeats.FindConfig]:
    """The same of a name ``hf://...``."""
    parts = name.removeprefix(_HUB).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise InputError(
            f"{name} does not name a model on the hub: write {_HUB}OWNER/REPO/FILE, or "
            f"{_HUB}OWNER/REPO for OpenBEATs."
        )
    repository = "/".join(parts[:2])
    if len(parts) == 2:
        return _here(openbeats.hub_folder(repository))
    file = fetch(repository, parts[2:], f"The BEATs checkpoint {name} is")
    return file, lambda: openbeats.hub_config(repository, parts[2])


def _from_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, Any]:
    model = {
        name.removeprefix(_MODEL): tensor
        for name, tensor in tensors.items()
        if name.startswith(_MODEL)
    }
    if not model:
        return dict(tensors)
    content: dict[str, Any] = {"model": model}
    if "cfg" in metadata:
        try:
            content["cfg"] = json.loads(metadata["cfg"])
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} cannot be read as a BEATs checkpoint: its cfg is no JSON."
            ) from error
    return content


def _checked(path: Path, content: Any) -> BeatsCheckpoint:
    refused = f"{path} is not a BEATs checkpoint:"
    if not isinstance(content, dict) or not {"cfg", "model"} <= content.keys():
        held = type(content).__name__
        if isinstance(content, dict):
            held = listed(map(str, content))
        raise InputError(
            f"{refused} expected 'cfg' and 'model', found {held}; give an official BEATs file."
        )
    cfg, model = content["cfg"], content["model"]
    if isinstance(cfg, Namespace):
        cfg = vars(cfg)
    if not isinstance(cfg, dict) or not isinstance(model, dict):
        raise InputError(f"{refused} 'cfg' and 'model' must be mappings.")
    if any(isinstance(x, Tensor) for x in cfg.values()):
        raise InputError(f"{refused} 'cfg' must hold no tensors.")
    check_state(model, path)
    if any(name.startswith("quantize.") for name in model):
        raise InputError(
            f"{path} is a BEATs tokenizer, not an encoder; give a file of the official list of "
            "pre-trained or fine-tuned models."
        )
    if "patch_embedding.weight" not in model:
        raise InputError(
            f"{refused} 'model' has no 'patch_embedding.weight', but {listed(model)}; give an "
            "official BEATs file."
        )
    return BeatsCheckpoint(cfg, model)
