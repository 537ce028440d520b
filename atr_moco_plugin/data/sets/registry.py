"""The data sets a configuration can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.audiocaps import AudioCapsConfig, open_audiocaps
from atr_moco_plugin.data.sets.clotho import ClothoConfig, open_clotho
from atr_moco_plugin.data.sets.esc50 import Esc50Config, open_esc50
from atr_moco_plugin.data.sets.manifest import ManifestConfig, open_manifest
from atr_moco_plugin.data.sets.tar_shards import WebdatasetConfig, open_webdataset
from atr_moco_plugin.data.sets.toy import ToyConfig, open_toy
from atr_moco_plugin.data.sets.wavcaps import WavCapsConfig, open_wavcaps

DATASETS: dict[str, tuple[type, Callable[[Any], AudioTextDataset]]] = {
    "toy": (ToyConfig, open_toy),
    "esc50": (Esc50Config, open_esc50),
    "audiocaps": (AudioCapsConfig, open_audiocaps),
    "clotho": (ClothoConfig, open_clotho),
    "wavcaps": (WavCapsConfig, open_wavcaps),
    "manifest": (ManifestConfig, open_manifest),
    "webdataset": (WebdatasetConfig, open_webdataset),
}
"""Name of a data set to its configuration class and the function that opens it."""
