"""Models of the transformers library: their configurations, and weights without their heads."""

from __future__ import annotations

import difflib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.utils import logging as verbosity

from atr_moco_plugin.encoders.sources import WEIGHT_FILES, find_folder
from atr_moco_plugin.encoders.weights import fetch, listed, verify
from atr_moco_plugin.errors import InputError, MissingFileError

# Not part of a tower. Layers that are left out at random have no gradient in that step, which DDP
# takes for a mistake; masks over time are drawn with NumPy's generator, which no checkpoint keeps;
# adapter and cache are not used, and of a decoder, which is thrown away, little is made.
_OFF: dict[str, object] = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "add_adapter": False,
    "use_cache": False,
    "decoder_layers": 1,
    "num_decoder_layers": 1,
    "reference_compile": False,
}
# Entries of config.json that say nothing of the encoder: labels, and where it came from.
_IGNORED = frozenset(
    "id2label label2id _name_or_path auto_map architectures dtype torch_dtype transformers_version "
    "task_specific_params problem_type".split()
)

_WEIGHTS = (*WEIGHT_FILES, "model.safetensors.index.json", "pytorch_model.bin.index.json")
"""What tells the folder of a model from others of its package, which have a config.json too."""


def model_config(
    pretrained: str | None, architecture: Mapping[str, Any] | None
) -> PretrainedConfig:
    """The configuration of a model, with what a tower does not use turned off.

    Args:
        pretrained: see :attr:`HfConfig.pretrained`.
        architecture: see :attr:`HfConfig.architecture`.

    Raises:
        FileNotFoundError: ``pretrained`` is in none of the three places.
        InputError: its ``config.json`` cannot be read or needs code of its own, or an entry is
            written wrongly.
    """
    changes = {k: v for k, v in (architecture or {}).items() if k not in _IGNORED}
    if pretrained is None:
        kind = changes.pop("model_type", None)
        try:
            config: PretrainedConfig = AutoConfig.for_model(str(kind))
        except ValueError as error:
            raise InputError(
                f"`architecture.model_type` is {kind!r}, which this version of transformers does "
                "not know; correct it or update transformers."
            ) from error
    else:
        config = _read_config(pretrained)
        kind = changes.pop("model_type", config.model_type)
        if kind != config.model_type:
            raise InputError(
                f"`architecture.model_type` is {kind!r}, but '{pretrained}' is a "
                f"{config.model_type}: leave it out."
            )
    known = {*config.to_dict(), *config.attribute_map}
    for name in changes:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if name not in known and near:
            raise InputError(
                f"`architecture.{name}` is no entry of a {config.model_type}. Did you mean "
                f"`{near[0]}`?"
            )
    try:
        # Anew, since some entries are made of others.
        own = {} if pretrained is None else config.to_dict()
        config = type(config).from_dict({**own, **changes})
        idle = _idle_entries(config, own, changes)
    except Exception as error:  # whatever a configuration class raises
        raise InputError(
            f"`architecture` does not describe a {config.model_type} "
            f"({type(error).__name__}: {' '.join(str(error).split())})."
        ) from error
    if idle:
        message = (
            f"`architecture.{idle[0]}` does nothing to a {config.model_type}: look for its own "
            f"name among the arguments of {type(config).__name__}."
        )
        if pretrained is not None:
            raise InputError(message)
        # A model.json has all arguments, and what else came with a config.json.
        needed = _arguments(type(config)) - _arguments(PretrainedConfig)
        if not needed & config.to_dict().keys() <= changes.keys():
            warnings.warn(message, stacklevel=3)
    for name, value in _OFF.items():
        if changes.get(name, value) != value:
            raise InputError(
                f"`architecture.{name}` is {changes[name]}, but it is always {value} in a tower: "
                "leave it out."
            )
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def _idle_entries(
    config: PretrainedConfig, own: Mapping[str, Any], changes: Mapping[str, Any]
) -> list[str]:
    """Entries that the configuration keeps and makes nothing of: no argument of its class, and
    another value than there is without them. (BERT's ``hidden_dropout_prob`` to DistilBERT; the
    ``num_hidden_layers`` of Whisper, which counts ``encoder_layers``.)"""
    taken = _arguments(type(config)) | _arguments(PretrainedConfig) | config.attribute_map.keys()
    without = type(config).from_dict({**own, **{k: changes[k] for k in changes.keys() & taken}})
    absent = object()
    return [k for k in changes if k not in taken and getattr(without, k, absent) != changes[k]]


def _arguments(kind: type) -> set[str]:
    return {*inspect.signature(kind).parameters}


def _read_config(pretrained: str) -> PretrainedConfig:
    folder = find_folder(pretrained, _WEIGHTS)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder or pretrained, local_files_only=folder is not None, trust_remote_code=False
        )
        return config
    except Exception as error:  # damaged files raise nearly anything
        raise MissingFileError(
            f"The config.json of '{pretrained}' cannot be had or is of no model that this version "
            f"of transformers knows ({type(error).__name__}); give a local folder that "
            "`save_pretrained` wrote, and no model that needs Python code of its own."
        ) from error


def plain_config(config: PretrainedConfig) -> dict[str, object]:
    """The entries of a configuration that build it again, without what every model has by
    default."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    common, own = PretrainedConfig().to_dict(), type(config)().to_dict()
    return {"model_type": config.model_type} | {
        name: value
        for name, value in sorted(values.items())
        if name not in _IGNORED
        and (name not in common or value != common[name] or value != own.get(name))
    }


def build(config: PretrainedConfig) -> nn.Module:
    """The encoder of a configuration, from random weights in float32.

    Raises:
        InputError: its sizes do not go together.
    """
    try:
        model = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever layers raise for sizes that make no sense
        raise InputError(
            f"`architecture` describes no {config.model_type} that can be built "
            f"({type(error).__name__}: {' '.join(str(error).split())})."
        ) from error
    return _encoder(model)


def load(pretrained: str, config: PretrainedConfig, sha256: str | None) -> nn.Module:
    """The encoder of a configuration with all its weights from ``pretrained``, in float32.

    Args:
        pretrained: see :attr:`HfConfig.pretrained`.
        config: of :func:`model_config`.
        sha256: see :attr:`HfConfig.sha256`.

    Raises:
        FileNotFoundError: there are no weights.
        InputError: they cannot be read without running code from them, have another digest, or lack
            some of the encoder.
    """
    folder = find_folder(pretrained, _WEIGHTS)
    if sha256 is not None:
        verify(_weights_file(pretrained, folder), sha256)
    try:
        with _quiet():
            model, found = AutoModel.from_pretrained(
                folder or pretrained,
                config=config,
                dtype=torch.float32,
                local_files_only=folder is not None,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # damaged files raise nearly anything
        raise InputError(
            f"The weights of '{pretrained}' cannot be loaded as a {config.model_type} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}); download them again, "
            "or correct `architecture`."
        ) from error
    encoder = _encoder(model)
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    own = {f"{prefix}.{name}".lstrip(".") for name, _ in encoder.named_parameters()}
    if missing := own & set(found["missing_keys"]):
        raise InputError(
            f"The weights of '{pretrained}' lack {listed(missing)} of its encoder, a "
            f"{config.model_type}, which would start from random numbers: give a model that has "
            "them."
        )
    return encoder


def _encoder(model: Any) -> nn.Module:
    """The part that makes states: of an encoder-decoder the encoder, and no pooler."""
    # Not by `is_encoder_decoder`, which T5's encoder saved alone denies.
    halves = [isinstance(getattr(model, x, None), nn.Module) for x in ("encoder", "decoder")]
    encoder: nn.Module = model.encoder if all(halves) else model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    if isinstance(mask := getattr(encoder, "masked_spec_embed", None), nn.Parameter):
        mask.requires_grad_(False)  # see `_OFF`
    return encoder


def _weights_file(pretrained: str, folder: Path | None) -> Path:
    if folder is None:
        return fetch(pretrained, WEIGHT_FILES, f"The weights of '{pretrained}' are")
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise MissingFileError(
        f"{folder} holds none of {', '.join(WEIGHT_FILES)}, so `sha256` cannot be compared: leave "
        "it out where the weights are in several files."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warning of weights that it did not use; those that it lacks are
    refused."""
    before = verbosity.get_verbosity()
    verbosity.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        verbosity.set_verbosity(before)
