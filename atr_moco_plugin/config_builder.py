"""From a mapping (YAML, keyword arguments) to the option dataclass of a part."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import dacite

from atr_moco_plugin.config import describe_type
from atr_moco_plugin.errors import InputError

ConfigT = TypeVar("ConfigT")


def build_config(config_class: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Build ``config_class`` from a mapping and refuse what does not fit.

    Args:
        config_class: a dataclass. It checks its values itself, as
            :class:`~atr_moco_plugin.config.Config` does.
        values: field name to value.
        where: the key the mapping stands under, for the message.

    Returns:
        An instance of ``config_class``.

    Raises:
        InputError: for an unknown key (with the nearest one), a value of the wrong type, or one
            that the class itself refuses with this error.
    """
    known = [f.name for f in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise _error(f"`{where}.{key}` is not known; `{where}` takes {', '.join(known)}.{hint}")
    try:
        return dacite.from_dict(config_class, dict(values), config=_STRICT)
    except dacite.WrongTypeError as ex:
        must = describe_type(ex.field_type)
        raise _error(f"`{where}.{ex.field_path}` is {ex.value!r}, but must be {must}.") from ex
    except (dacite.DaciteError, InputError) as ex:
        raise _error(f"`{where}` is not valid: {str(ex).rstrip('.')}.") from ex


def _as_path(value: object) -> object:
    """YAML has no paths."""
    return Path(value) if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    """YAML has no tuples either."""
    return tuple(value) if isinstance(value, list) else value


_STRICT = dacite.Config(strict=True, type_hooks={Path: _as_path, tuple[str, ...]: _as_tuple})


def _error(message: str) -> InputError:
    # Keys and values may have line breaks in them.
    return InputError(" ".join(message.split()))
