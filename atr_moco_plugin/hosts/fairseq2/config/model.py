"""The model family ``atr_retrieval``, and the options of its architectures in a recipe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fairseq2.recipe.config import ModelSection
from fairseq2.utils.config import ConfigMerger

from atr_moco_plugin.model.architectures import ARCHITECTURES

FAMILY = "atr_retrieval"


def drop_options_of_replaced_parts(section: ModelSection, merger: ConfigMerger) -> None:
    """Drop the options that an architecture gives to a part which a model section replaces.

    With ``model.config_overrides.audio.name=other`` the options of BEATs are not the other
    encoder's.
    """
    make, overrides = ARCHITECTURES.get(section.arch or ""), section.config_overrides or {}
    if section.family != FAMILY or make is None:
        return
    stated: Any = overrides
    architecture = asdict(make())
    for part in ("audio", "text", "head"):
        name = (stated.get(part) or {}).get("name", architecture[part]["name"])
        if name != architecture[part]["name"]:
            architecture[part] = {"name": name, "config": {}}
            # The parts of `base` have no options.
            section.arch, section.config_overrides = "base", merger.merge(architecture, overrides)
