"""Options of a criterion that a run which goes on has to keep."""

from __future__ import annotations

import json
from dataclasses import asdict
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
    return dict(json.loads(json.dumps(options, default=str)))
