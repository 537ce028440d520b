"""A data set opened to be looked at: with copies and broken files, and without audio if need be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.checks import NAMES_TRIED
from atr_moco_plugin.data.sets.captions_alone import CAPTIONS_ALONE, open_captions_alone
from atr_moco_plugin.data.sets.registry import dataset_config, open_dataset, with_options
from atr_moco_plugin.errors import InputError, MissingFileError

_LENIENT = {"allow_shared_audio": True, "strict": False, "check_audio": False}


@dataclass(frozen=True)
class Opened:
    """A data set that is open to be looked at.

    Attributes:
        dataset: its clips; without audio, they have no source.
        has_audio: whether audio of it was found.
        notes: how it was read, what opening it warned of, and that its audio is missing.
    """

    dataset: AudioTextDataset
    has_audio: bool = True
    notes: tuple[str, ...] = ()


def open_to_inspect(family: str, options: Mapping[str, Any]) -> Opened:
    """Open a data set so that everything wrong with it can be found.

    What training refuses or leaves out is let in, to be named clip by clip: a recording in two
    splits, a file that cannot be decoded. Where no audio is there, the captions are opened alone.

    Args:
        family: name of the data set, such as ``clotho``.
        options: its options, those of ``dataset.config_overrides``.

    Raises:
        MissingFileError: if there are no captions either.
        InputError: for an option that is not known or a captions file that cannot be read.
    """
    config = with_options(dataset_config(family, options), **_LENIENT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        missing = ""
        try:
            dataset = open_dataset(family, config)
        except MissingFileError as ex:
            if family not in CAPTIONS_ALONE:
                raise
            try:
                dataset = open_captions_alone(family, config)
            except InputError:
                raise ex from None  # it names more of what was looked for
            why = str(ex).replace(f"; {NAMES_TRIED}", "")
            missing = f"There is no audio, so the captions alone were looked at. {why}."
    # A folder says by which rules it was read.
    rules = getattr(dataset, "notes", ())
    said = dict.fromkeys((*rules, *(str(warning.message) for warning in caught)))
    return Opened(dataset, not missing, tuple(filter(None, (missing, *said))))
