"""Keys that a user sets: those of every loop, and those that fairseq2 alone knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from atr_moco_plugin.config_builder import build_config
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.choices import nested
from atr_moco_plugin.finetuning.config import FinetuneConfig
from atr_moco_plugin.finetuning.parts import PARTS, merged

_ROOT = "finetune"

_WHOLE_PARTS = tuple((part,) for part in (*PARTS, "head"))


def read_config(stated: Mapping[str, Any]) -> tuple[FinetuneConfig, dict[str, Any]]:
    """What a user has set, checked, and what of it only fairseq2 can check.

    Args:
        stated: keys of a recipe, see :func:`written_out`.

    Raises:
        InputError: for a value that cannot be, naming the key.
    """
    known, other = split_keys(written_out(stated), FinetuneConfig)
    try:
        return build_config(FinetuneConfig, known, _ROOT), other
    except InputError as ex:  # a user sets `dataset.x`, whatever the whole is called
        raise InputError(str(ex).replace(f"`{_ROOT}.", "`")) from ex


def without_nulls(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that a user has set, less those that are None, which leaves the choice to the plan. None
    is a value of its own where only fairseq2 knows the key, and for options of the data set and of
    the model's parts, where it turns something off.

    Raises:
        InputError: where two keys are of one place and differ.
    """
    known, other = split_keys(written_out(stated), FinetuneConfig)
    return merged(_dropped(known), other)


def _dropped(values: Mapping[str, Any], *place: str) -> dict[str, Any]:
    return {
        key: _dropped(value, *place, key) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None or _is_meant(*place, key)
    }


def _is_meant(*place: str) -> bool:
    section, option = place[:2], place[2:]
    if not option:
        return False
    of_model = section == ("model", "config_overrides")
    turns_off = of_model and option[-1] != "freeze" and option not in _WHOLE_PARTS
    return turns_off or section == ("dataset", "config_overrides")


def written_out(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as a user writes them, as nested ones: those with dots, and ``criterion: NAME``, the
    shorthand of the recipes, so that options of the criterion can be merged with it.

    Raises:
        InputError: where two keys are of one place and differ.
    """
    name = stated.get("criterion")
    return nested({**stated, "criterion": {"name": name}} if isinstance(name, str) else stated)


def split_keys(tree: Mapping[str, Any], config_class: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys that a configuration class has, and the others, both nested."""
    types = get_type_hints(config_class)
    names = {field.name for field in fields(config_class)}
    known: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in names:
            other[key] = value
        elif is_dataclass(types[key]) and isinstance(value, Mapping):
            known[key], rest = split_keys(value, types[key])
            if rest:
                other[key] = rest
        else:
            known[key] = value
    return known, other
