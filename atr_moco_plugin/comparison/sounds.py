"""The sounds of a comparison, from the data set that a run has recorded."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from atr_moco_plugin.comparison.sides import Source
from atr_moco_plugin.data.audio.reader import AudioReader
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.unused_options import recorded_options
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset, with_options
from atr_moco_plugin.errors import InputError, counted
from atr_moco_plugin.report.collect import sound_of
from atr_moco_plugin.report.examples import Sound

_RATE = 32_000
"""Hz: MP3 has this rate, and there is little to hear above half of it."""

_MAX_SECONDS = 10.0


def find_sounds(sources: Iterable[Source], keys: Iterable[str]) -> tuple[dict[str, Sound], str]:
    """Read clips from the first data set of the runs that can be opened here.

    Args:
        sources: runs and evaluations.
        keys: of the clips.

    Returns:
        The sounds by key, those that were found, and why there are none or fewer; empty where all
        are there.
    """
    problem = "no run has recorded its data set"
    for source in sources:
        recorded = source.recorded
        if recorded.family is None:
            continue
        try:
            dataset = _open(recorded.family, dict(recorded.overrides or {}))
        except (InputError, OSError) as ex:
            problem = f"the data set of {source} cannot be opened: {' '.join(str(ex).split())}"
            continue
        return _load(dataset, set(keys))
    return {}, f"There are no sounds, since {problem.rstrip('.')}."


def _open(family: str, overrides: dict[str, Any]) -> AudioTextDataset:
    # A few clips are read: reading the headers of all would take longer.
    config = with_options(dataset_config(family, overrides), check_audio=False, strict=False)
    with warnings.catch_warnings():
        # Whoever trained the run has seen what opening it warns of.
        warnings.simplefilter("ignore")
        with recorded_options(overrides):
            return open_dataset(family, config).read_with(AudioReader(sample_rate=_RATE))


def _load(dataset: AudioTextDataset, keys: set[str]) -> tuple[dict[str, Sound], str]:
    found = {
        clip.key: sound_of(clip, dataset.load, _RATE, _MAX_SECONDS)
        for split in dataset.splits.values()
        for clip in split
        if clip.key in keys
    }
    missing = len(keys - found.keys())
    if not missing:
        return found, ""
    are = "is" if missing == 1 else "are"
    of = counted(len(keys), "clip")
    return found, f"{missing:,} of {of} {are} not in the data set {dataset.name} here."
