"""From a mapping (YAML, keyword arguments) to the config dataclass of a part."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import dacite

from atr_moco_plugin.errors import InputError

ConfigT = TypeVar("ConfigT")


def structure(config_class: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Build ``config_class`` from a mapping and refuse what does not fit.

    Args:
        config_class: a dataclass whose ``__post_init__`` checks values.
        values: field name to value.
        where: the key the mapping stands under, for the message.

    Returns:
        An instance of ``config_class``.

    Raises:
        InputError: for an unknown key (with the nearest one), a value of the wrong type, or one
            that the class itself refuses with this error.
    """
    known = [f.name for f in dataclasses.fields(config_class)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise _error(f"`{where}.{key}` is not known; `{where}` takes {', '.join(known)}.{hint}")
    try:
        return dacite.from_dict(config_class, dict(values), config=dacite.Config(strict=True))
    except dacite.WrongTypeError as ex:
        must = _describe(ex.field_type)
        raise _error(f"`{where}.{ex.field_path}` is {ex.value!r}, but must be {must}.") from ex
    except dacite.DaciteError as ex:
        raise _error(f"`{where}` is not valid: {ex}.") from ex
    except InputError as ex:
        raise _error(f"`{where}` is not valid: {ex}") from ex


def _error(message: str) -> InputError:
    # Keys and values may have line breaks in them.
    return InputError(" ".join(message.split()))


def _describe(expected: Any) -> str:
    options = get_args(expected)
    if get_origin(expected) is Literal:
        return ("one of " if len(options) > 1 else "") + ", ".join(map(str, options))
    if get_origin(expected) in (Union, UnionType):
        return " or ".join(map(_describe, options))
    return getattr(expected, "__name__", None) or str(expected)
