"""Options of a criterion that a run which goes on has to keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from os import PathLike
from typing import Any

_MAY_CHANGE = ("queue_size", "queue_warmup_steps", "teachers")


def kept_options(config: Any) -> dict[str, Any]:
    """Options by name, of JSON's types, without those that a run may change as it goes on: the
    state of a criterion says what becomes of a queue, and knows teachers by what they have
    embedded, wherever that is.

    Args:
        config: of the criterion.
    """
    options = {name: value for name, value in asdict(config).items() if name not in _MAY_CHANGE}
    return dict(json.loads(json.dumps(options, default=_plain)))


def _plain(value: object) -> object:
    """What JSON does not have, such that it is the same in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return str(value) if isinstance(value, (PathLike, Enum)) else type(value).__qualname__
