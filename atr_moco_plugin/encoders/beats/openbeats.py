"""OpenBEATs (Bharadwaj et al., WASPAA 2025, https://arxiv.org/abs/2507.14129) as official content.

The network is BEATs'. What differs is the layout that ESPnet writes: a folder with weights and
``config.yaml``, perhaps deep in it, or one file ``{"cfg": ..., "model": ...}``. Names may be under
``encoder.``, there are two convolutions more that only make ESPnet's padding mask, and log mel
energies may have another mean and standard deviation.

That padding mask counts a token where all its samples are the clip's, which is ``exact`` here.
Clips below 0.2 s are repeated by ESPnet where a whole batch is that short; here they are not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from atr_moco_plugin.encoders.weights import fetch, listed
from atr_moco_plugin.errors import InputError, MissingFileError

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"

FindConfig = Callable[[], "Path | None"]

_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")
_PATCHES = "patch_embedding.weight"
_PREFIX = "encoder."
# Convolutions of ones, through which ESPnet sends its padding mask.
_MASKING = ("patch_embedding_pad.weight", "raw2fbank_pad.weight")
# What ESPnet can put behind the network, by the names of its weights, and its option for each.
_REFUSED = {
    "downsample_conv.": "downsampling_rate",
    "conformer_adapter.": "adapter_config",
    "cross_embed_positions.": "add_positional_information",
    "layer_weights": "use_weighted_representation",
}
_STATISTICS = ("fbank_mean", "fbank_std")
# Names of models that were fine-tuned on one of OpenBEATs', and names on the machine of its
# authors, where iterations count from 0.
_FINE_TUNED = re.compile(r"openbeats?-(base|large)-i([123])(?!\d)", re.IGNORECASE)
_TRAINED_AS = re.compile(r"ear_(base|large).*?beats_iter([012])(?!\d)", re.IGNORECASE)


def find_weights(folder: Path) -> Path:
    """The weights in a folder as ESPnet writes it, or a snapshot of a repository; anywhere in it.

    Raises:
        InputError: for a folder without weights, or with several, of which one is to be given.
    """
    files = sorted(x for x in folder.rglob("*") if x.suffix in _WEIGHTS and x.is_file())
    # A link beside the file that it names, as ESPnet's "best", is one file.
    weights = list({x.resolve(): x for x in files}.values())
    if len(weights) != 1:
        found = listed(str(x.relative_to(folder)) for x in weights)
        raise InputError(
            f"{folder} has {len(weights)} checkpoints ({found}), expected one file of "
            f"{', '.join(_WEIGHTS)}; give the path of the file to load."
        )
    return weights[0]


def find_config(folder: Path) -> Path | None:
    """The ``config.yaml`` of :func:`find_weights`: the one beside them, or the only one.

    Raises:
        InputError: for several, none of which is beside the weights.
    """
    weights = find_weights(folder)
    if (beside := config_beside(weights)) is not None:
        return beside
    configs = sorted(folder.rglob(CONFIG_FILE))
    if len(configs) > 1:
        found = listed(str(x.relative_to(folder)) for x in configs)
        raise InputError(
            f"{folder} has {len(configs)} files {CONFIG_FILE} ({found}); put the right one beside "
            f"{weights.name}."
        )
    return configs[0] if configs else None


def config_beside(file: Path) -> Path | None:
    """The ``config.yaml`` in the folder of a weights file, if there is one."""
    config = file.with_name(CONFIG_FILE)
    return config if config.is_file() else None


def hub_folder(repository: str) -> Path:
    """A repository's weights and configurations, from the Hugging Face Hub or its cache.

    Raises:
        MissingFileError: when there is none, or no network.
    """
    return _snapshot(repository, [f"*{suffix}" for suffix in _WEIGHTS])


def as_official(content: Any, file: Path, find_config: FindConfig, name: str) -> Any:
    """ESPnet's content as that of an official file, ``{"cfg": ..., "model": ...}``.

    Args:
        content: as it was read. What is not of ESPnet is returned as it is.
        file: where it was read from.
        find_config: called where it is of ESPnet, for the ``config.yaml`` that belongs to it.
        name: what the user has given, which may name the model that was fine-tuned.

    Raises:
        InputError: for a model with a part that is not BEATs', or one whose configuration is
            missing, cannot be read, or contradicts itself.
        MissingFileError: where the configuration of the model that was fine-tuned is not here.
    """
    model = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(x, str) for x in model):
        return content
    complete = "cfg" in content and "model" in content
    nested = _PREFIX + _PATCHES in model
    if not nested and not any(x in model for x in _MASKING) and (complete or _PATCHES not in model):
        return content
    state = {
        x.removeprefix(_PREFIX) if nested else x: tensor
        for x, tensor in model.items()
        if not nested or x.startswith(_PREFIX)
    }
    for part, option in _REFUSED.items():
        if any(x.startswith(part) for x in state):
            raise InputError(
                f"{file} is of an OpenBEATs model with `{option}`, which puts {part.rstrip('.')} "
                "behind the network and is not supported; give a model without it."
            )
    config = find_config()
    options = {} if config is None else _encoder_options(config)
    if complete:
        cfg: Any = content["cfg"]
    elif config is None:
        raise MissingFileError(
            f"{file} holds weights of an OpenBEATs model without its architecture, and there is no "
            f"{CONFIG_FILE} beside it; put ESPnet's there, or give the folder that has both."
        )
    else:
        cfg = _architecture(options, config, name)
    if isinstance(cfg, dict):
        cfg = {**cfg, **_statistics(cfg, options, file)}
    return {"cfg": cfg, "model": {x: t for x, t in state.items() if x not in _MASKING}}


def _encoder_options(config: Path) -> dict[str, Any]:
    """The section ``encoder_conf`` of ESPnet's ``config.yaml``; empty where it has none."""
    import yaml  # huggingface-hub brings it

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{config} cannot be read as the configuration of an OpenBEATs model "
            f"({type(error).__name__}); copy ESPnet's {CONFIG_FILE} again."
        ) from error
    options = content.get("encoder_conf") if isinstance(content, dict) else None
    if options is not None and not isinstance(options, dict):
        raise InputError(f"{config}: `encoder_conf` must be a mapping, as ESPnet writes it.")
    options = options or {}
    if options.get("max_layer") is not None:
        raise InputError(
            f"{config}: `encoder_conf.max_layer` is {options['max_layer']!r}, expected none: a "
            "model that ends before its last layer is not supported."
        )
    return options


def _architecture(options: Mapping[str, Any], config: Path, name: str) -> dict[str, Any]:
    """The ``beats_config`` of a model whose file has none.

    One that began from another model's file has that one's, with its own changes.
    """
    own = options.get("beats_config") or {}
    if not isinstance(own, dict):
        raise InputError(f"{config}: `encoder_conf.beats_config` must be a mapping.")
    origin = options.get("beats_ckpt_path")
    if origin:
        return {**_base_architecture(f"{name} {config}", str(origin), config), **own}
    if not own:
        raise InputError(
            f"{config} has no `encoder_conf.beats_config`, so that the sizes of the network are "
            f"unknown; give the {CONFIG_FILE} that ESPnet wrote in training this model."
        )
    return {"input_patch_size": 16, **own}  # ESPnet's default; the others are the official ones


def _base_architecture(names: str, origin: str, config: Path) -> dict[str, Any]:
    base = _base_repository(names, origin)
    wanted = (
        f"{config} takes the sizes of the network from {origin}, which the model was fine-tuned "
        "from, and that"
    )
    remedy = "copy `beats_config` of that model's config.yaml into its `encoder_conf`, and remove "
    if base is None:
        raise InputError(f"{wanted} names no OpenBEATs model; {remedy}`beats_ckpt_path`.")
    try:
        folder = _snapshot(base, [])
    except MissingFileError as error:
        raise MissingFileError(
            f"{wanted} one's {CONFIG_FILE} ({base}) is not to be had from the Hugging Face Hub; "
            f"{remedy}`beats_ckpt_path`."
        ) from error
    for file in sorted(folder.rglob(CONFIG_FILE)):
        found = _encoder_options(file).get("beats_config")
        if isinstance(found, dict) and found:
            logger.info("OpenBEATs: the sizes of the network are those of %s.", base)
            return {"input_patch_size": 16, **found}
    raise InputError(f"{wanted} one's {CONFIG_FILE} ({base}) has none; {remedy}`beats_ckpt_path`.")


def _base_repository(names: str, origin: str) -> str | None:
    """The repository of the model that another one was fine-tuned from."""
    if found := _FINE_TUNED.search(names) or _FINE_TUNED.search(origin):
        return f"shikhar7ssu/OpenBEATs-{found[1].capitalize()}-i{found[2]}"
    if found := _TRAINED_AS.search(origin):
        return f"shikhar7ssu/OpenBEATs-{found[1].capitalize()}-i{int(found[2]) + 1}"
    return None


def _statistics(cfg: Mapping[str, Any], options: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Mean and standard deviation of the filterbank, wherever the model says them."""
    found: dict[str, Any] = {}
    for name in _STATISTICS:
        given = [x[name] for x in (cfg, options) if isinstance(x.get(name), (int, float))]
        if len(given) == 2 and given[0] != given[1]:
            raise InputError(
                f"{file}: `{name}` is {given[0]!r} in the sizes of the network and {given[1]!r} in "
                f"{CONFIG_FILE}; make them equal."
            )
        if given:
            found[name] = given[0]
    if found:
        logger.info("OpenBEATs: features are normalised by %s.", found)
    return found


def _snapshot(repository: str, weights: list[str]) -> Path:
    try:
        folder = snapshot_download(repository, allow_patterns=[f"*{CONFIG_FILE}", *weights])
    except (OSError, ValueError) as error:
        raise MissingFileError(
            f"The OpenBEATs model {repository} is not to be had from the Hugging Face Hub "
            f"({type(error).__name__}): download it where there is a network and give the local "
            "path."
        ) from error
    return Path(folder)


def hub_config(repository: str, file: str) -> Path | None:
    """The ``config.yaml`` in the folder of a repository's file, or at its top, if there is one."""
    places = [str(Path(file).with_name(CONFIG_FILE)), CONFIG_FILE]
    try:
        return fetch(repository, places, f"The {CONFIG_FILE} of {repository} is")
    except MissingFileError:
        return None
