"""BEATs checkpoint files: what they hold, how they name it, and what is wrong with a bad one."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atr_moco_plugin.encoders.weights import is_weights, one_line
from atr_moco_plugin.errors import InputError, MissingFileError
from atr_moco_plugin.io.checkpoints import DamagedFileError, read_torch
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
    """What an official checkpoint file holds.

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
            under ``cfg`` and names under ``model.``. A string ``hf://OWNER/REPO/FILE`` is fetched
            from the Hugging Face Hub or its cache.
        sha256: Expected SHA-256 of the file in hexadecimal, or ``None`` to accept any.

    Raises:
        FileNotFoundError: If ``path`` is not a file, or not to be had from the hub.
        ValueError: If the digest differs, or the file is unreadable or no BEATs encoder's.
    """
    path = _download(path) if str(path).startswith(_HUB) else expanded(path, "checkpoint")
    if not path.is_file():
        raise MissingFileError(
            f"There is no BEATs checkpoint at {path}; download one of the official BEATs models "
            "and give its local path."
        )
    if sha256 is not None:
        _verify(path, sha256)
    try:
        if path.suffix == ".safetensors":
            content = _read_safetensors(path)
        else:
            # Files that were saved with the configuration of the training script hold a Namespace.
            content = read_torch(path, safe_globals=[Namespace])
    except Exception as error:  # a truncated or foreign safetensors file raises nearly anything
        whole = isinstance(error, InputError) and not isinstance(error, DamagedFileError)
        reason = str(error).removeprefix(f"{path} ") if whole else (
            "is truncated, damaged or of another format; download it again."
        )  # fmt: skip
        raise InputError(f"{path} cannot be read as a BEATs checkpoint: it {reason}") from error
    return _checked(path, content)


def write_checkpoint(path: str | Path, cfg: Mapping[str, Any], model: Mapping[str, Tensor]) -> None:
    """Write what :func:`read_checkpoint` reads; the suffix ``.safetensors`` selects that format.

    Args:
        path: File to write.
        cfg: The official configuration.
        model: Parameters under their official names. A safetensors file holds the relative
            attention bias, which all layers share, under the first layer's name only.
    """
    if Path(path).suffix == ".safetensors":
        shared = [name for name in model if name.endswith(_LAYER_BIAS)][1:]
        tensors = {_MODEL + k: v.contiguous() for k, v in model.items() if k not in shared}
        save_file(tensors, path, metadata={"cfg": json.dumps(dict(cfg))})
    else:
        torch.save({"cfg": dict(cfg), "model": dict(model)}, path)


def to_official(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename ``BeatsEncoder.state_dict()``; every layer lists the relative attention bias."""
    official = {}
    for name, tensor in state.items():
        if name == _SHARED_BIAS:
            for layer in range(layers):
                official[f"encoder.layers.{layer}.{_LAYER_BIAS}"] = tensor
        else:
            official[_TO_OFFICIAL.get(name, name)] = tensor
    return official


def from_official(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_official`; at least one layer must name the relative attention bias.

    Raises:
        ValueError: If the relative attention bias differs between layers.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in model.items():
        if not name.endswith(_LAYER_BIAS):
            state[_FROM_OFFICIAL.get(name, name)] = tensor
        elif not _equal(state.setdefault(_SHARED_BIAS, tensor), tensor):
            raise InputError(
                f"{one_line(name)} differs from other layers' tensor; BEATs' layers share one."
            )
    return state


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that ``state`` has exactly the names and shapes of ``expected``.

    Raises:
        ValueError: Naming the parameters that are missing, unexpected or of another shape.
    """
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise InputError(
            "the parameters do not match the cfg: "
            f"missing {_listed(missing)}, unexpected {_listed(unexpected)}."
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{_TO_OFFICIAL.get(name, name)} has shape {list(state[name].shape)}, "
                f"but the cfg asks for {list(tensor.shape)}."
            )


def _download(name: str | Path) -> Path:
    parts = str(name).removeprefix(_HUB).split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise InputError(f"{name} does not name a file on the hub: write {_HUB}OWNER/REPO/FILE.")
    try:
        return Path(hf_hub_download("/".join(parts[:2]), parts[2]))
    except (EntryNotFoundError, OSError, ValueError) as error:
        raise MissingFileError(
            f"The BEATs checkpoint {name} is not to be had from the Hugging Face Hub "
            f"({type(error).__name__}): download it where there is a network and give its local "
            "path."
        ) from error


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256.lower():
        raise InputError(
            f"{path} has SHA-256 {digest.hexdigest()}, expected {sha256}; download it again or "
            "correct the expected digest."
        )


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        names = [name for name in sorted(file.keys()) if name.startswith(_MODEL)]
        content: dict[str, Any] = {
            "model": {name.removeprefix(_MODEL): file.get_tensor(name) for name in names}
        }
        cfg = (file.metadata() or {}).get("cfg")
    if cfg is not None:
        content["cfg"] = json.loads(cfg)
    return content


def _checked(path: Path, content: Any) -> BeatsCheckpoint:
    held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not {"cfg", "model"} <= content.keys():
        raise InputError(
            f"{path} is not a BEATs checkpoint: expected 'cfg' and 'model', found "
            f"{_listed(held) if isinstance(held, list) else held}; give an official BEATs file."
        )
    cfg, model = content["cfg"], content["model"]
    if isinstance(cfg, Namespace):
        cfg = vars(cfg)
    if not isinstance(cfg, dict) or not isinstance(model, dict):
        raise InputError(f"{path} is not a BEATs checkpoint: 'cfg' and 'model' must be mappings.")
    if any(isinstance(x, Tensor) for x in cfg.values()):
        raise InputError(f"{path} is not a BEATs checkpoint: 'cfg' must hold no tensors.")
    if not all(isinstance(name, str) and is_weights(x) for name, x in model.items()):
        raise InputError(
            f"{path} is not a BEATs checkpoint: 'model' must map names to tensors of numbers."
        )
    if any(name.startswith("quantize.") for name in model):
        raise InputError(
            f"{path} is a BEATs tokenizer, not an encoder; give a file of the official list of "
            "pre-trained or fine-tuned models."
        )
    if "patch_embedding.weight" not in model:
        raise InputError(
            f"{path} is not a BEATs checkpoint: 'model' has no 'patch_embedding.weight', but "
            f"{_listed(model)}; give an official BEATs file."
        )
    return BeatsCheckpoint(cfg, model)


def _listed(names: Iterable[str], limit: int = 4) -> str:
    """The first names in order, and how many more there are."""
    ordered = sorted({one_line(_TO_OFFICIAL.get(name, name)) for name in names})
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return (", ".join(ordered[:limit]) or "none") + more
