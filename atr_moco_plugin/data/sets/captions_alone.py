"""A data set without its audio: the captions files can be had where the recordings cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atr_moco_plugin.data.clips import Clip, ClipTable
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.caption_folder import required_root
from atr_moco_plugin.data.opening.captions import CaptionTable
from atr_moco_plugin.data.opening.checks import check_captions, check_disjoint
from atr_moco_plugin.data.opening.exclusion import Exclusion
from atr_moco_plugin.data.sets.audiocaps import read_audiocaps_captions
from atr_moco_plugin.data.sets.clotho import read_clotho_captions
from atr_moco_plugin.data.sets.manifest import find_manifest, read_manifest_captions
from atr_moco_plugin.data.sets.wavcaps import read_wavcaps_captions, split_recordings
from atr_moco_plugin.data.summary import Counts

Tables = Mapping[str, CaptionTable]


def _audiocaps(config: Any) -> Tables:
    return read_audiocaps_captions(config.captions or required_root(config.root, "AudioCaps"))


def _clotho(config: Any) -> Tables:
    return read_clotho_captions(config.captions or required_root(config.root, "Clotho"))


def _wavcaps(config: Any) -> Tables:
    place = config.captions or required_root(config.root, "WavCaps")
    return split_recordings(read_wavcaps_captions(place), config)


def _manifest(config: Any) -> Tables:
    path = find_manifest(required_root(config.root, "A manifest", "table"))
    return read_manifest_captions(path, config.audio, config.split)


CAPTIONS_ALONE: dict[str, Callable[[Any], Tables]] = {
    "audiocaps": _audiocaps,
    "clotho": _clotho,
    "wavcaps": _wavcaps,
    "manifest": _manifest,
}
"""Data sets whose captions can be read without audio, to the function that reads them."""


def open_captions_alone(family: str, config: Any) -> AudioTextDataset:
    """Open a data set whose audio is not there; its clips have no source and cannot be loaded.

    Splits, keys and captions are those of the data set with audio, but for clips that only their
    audio shows to be one recording. All clips are counted as missing.

    Args:
        family: a name in :data:`CAPTIONS_ALONE`.
        config: the data set's options.

    Raises:
        MissingFileError, InputError: see the data set.
    """
    name = getattr(config, "name", family)
    tables = CAPTIONS_ALONE[family](config)
    exclusion = Exclusion(config.exclude)
    tables = exclusion.from_tables(name, tables, audio=False)
    check_disjoint(name, tables, allow=config.allow_shared_audio)
    exclusion.rename()
    check_captions(name, tables, strict=config.strict)
    splits: dict[str, ClipTable] = {}
    earlier: set[str] = set()
    for split, table in tables.items():
        splits[split] = ClipTable(
            Clip(f"{split}/{item.key}" if item.key in earlier else item.key, item.captions, None)
            for item in table.recordings.values()
        )
        earlier.update(clip.key for clip in splits[split])
    counts = {
        split: Counts(
            missing=len(table.recordings),
            no_caption=len(table.without_caption),
            empty_captions=table.empty_captions,
            repeated_rows=table.repeated_rows,
            excluded=exclusion.numbers[split],
        )
        for split, table in tables.items()
    }
    return AudioTextDataset(name, splits, counts=counts)
