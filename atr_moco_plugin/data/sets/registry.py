"""The data sets a configuration can name, and how one is opened by its name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.audiocaps import AudioCapsConfig, open_audiocaps
from atr_moco_plugin.data.sets.clotho import ClothoConfig, open_clotho
from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.data.sets.folder import FolderConfig, open_folder
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.scenes import ScenesConfig, open_scenes
from atr_moco_plugin.data.sets.tar_shards import WebdatasetConfig, open_webdataset
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.data.sets.wavcaps import WavCapsConfig, open_wavcaps
from atr_moco_plugin.errors import InputError

DATASETS: dict[str, tuple[type, Callable[[Any], AudioTextDataset]]] = {
    "toy": (ToyConfig, open_toy),
    "scenes": (ScenesConfig, open_scenes),
    "esc50": (Esc50Config, open_esc50),
    "audiocaps": (AudioCapsConfig, open_audiocaps),
    "clotho": (ClothoConfig, open_clotho),
    "wavcaps": (WavCapsConfig, open_wavcaps),
    "manifest": (ManifestConfig, open_manifest),
    "folder": (FolderConfig, open_folder),
    "webdataset": (WebdatasetConfig, open_webdataset),
}
"""Name of a data set to its configuration class and the function that opens it."""


def dataset_config(family: str, options: Mapping[str, Any]) -> Any:
    """The options of a data set, from names and plain values, as a recipe has them.

    ``dataset_config("clotho", {"root": "clotho/"})`` is ``ClothoConfig(root=Path("clotho"))``.

    Args:
        family: a name in :data:`DATASETS`.
        options: those of ``dataset.config_overrides``; a path may be a string.

    Raises:
        InputError: for an unknown data set or option, or a value that it cannot have.
    """
    if family not in DATASETS:
        near = difflib.get_close_matches(str(family), DATASETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"`dataset.family` is {family!r}, expected one of {', '.join(DATASETS)}.{hint}"
        )
    config_class = DATASETS[family][0]
    types = get_type_hints(config_class)
    values = {
        name: Path(value) if isinstance(value, str) and Path in get_args(types.get(name)) else value
        for name, value in options.items()
    }
    return build_config(config_class, values, "dataset.config_overrides")


def open_dataset(family: str, config: Any) -> AudioTextDataset:
    """Open a data set with what :func:`dataset_config` gives for it.

    Raises:
        MissingFileError, InputError: see the data set.
    """
    return DATASETS[family][1](config)


def one_decoder(overrides: Mapping[str, Any] | None, stated: object) -> Decoder:
    """The decoder of headers and of audio, which may be said in two places.

    Args:
        overrides: ``dataset.config_overrides``.
        stated: ``dataset.decoder``; None or empty says nothing.

    Raises:
        InputError: if the two differ, or there is no such decoder.
    """
    own = (overrides or {}).get("decoder")
    if stated and own and stated != own:
        raise InputError(
            f"`dataset.config_overrides.decoder` is {own}, but `dataset.decoder` {stated}; set "
            "`dataset.decoder` alone."
        )
    decoder = stated or own or "soundfile"
    if decoder not in get_args(Decoder):
        known = ", ".join(get_args(Decoder))
        raise InputError(f"`dataset.decoder` is {decoder!r}, expected one of {known}.")
    return cast(Decoder, decoder)


def with_options(config: Any, **options: Any) -> Any:
    """A data set's options with others set, as far as it has them."""
    known = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in options.items() if k in known})
