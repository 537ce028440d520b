"""What a recipe's section says of a data set before fairseq2 opens it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fairseq2.recipe.error import RecipeError
from fairseq2.utils.config import ConfigMerger

from atr_moco_plugin.data.sets.registry import DATASETS


def open_with_decoder(section: Any, merger: ConfigMerger) -> None:
    """Have the headers of files read by ``dataset.decoder``, which decodes the files later.

    Raises:
        RecipeError: if the data set's own option of that name says otherwise.
    """
    overrides = section.config_overrides or {}
    decoder = section.decoder or "soundfile"
    stated = overrides.get("decoder", decoder)
    if stated != decoder:
        raise RecipeError(
            f"`dataset.config_overrides.decoder` is {stated}, but `dataset.decoder` {decoder}; set "
            "`dataset.decoder` alone."
        )
    config_class = DATASETS[section.family][0] if section.family in DATASETS else None
    reads_headers = config_class and "decoder" in {option.name for option in fields(config_class)}
    if reads_headers and decoder != "soundfile":
        section.config_overrides = merger.merge(overrides, {"decoder": decoder})
