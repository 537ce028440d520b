"""Options of a criterion that a run which goes on has to keep, and what follows its length."""

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


def other_length(criterion: Any, before: int | None, now: int) -> str | None:
    """What to warn of where a run goes on with another length, ``None`` where nothing depends on
    it.

    Args:
        criterion: with the state that it goes on from.
        before: its ``total_steps`` until then, ``None`` where they are not known.
        now: its ``total_steps`` from here on.
    """
    if before is None or before == now:
        return None
    config, steps = criterion.config, int(getattr(criterion, "num_steps", 0))
    moved = []
    if getattr(config, "momentum_schedule", None) == "cosine":
        moved.append("the momentum factor (`momentum_schedule: cosine`)")
    # It falls over the first half of a run.
    if hasattr(config, "gamma_min") and 2 * steps < max(before, now):
        moved.append("gamma of `sogclr`")
    if getattr(getattr(criterion, "matching_start", None), "looks", False):
        moved.append("the first step that may match (`atm_start: auto`)")
    if not moved:
        return None
    return (
        f"The run was to have {before:,} steps and goes on with {now:,}, which moves what goes by "
        f"its length: {', '.join(moved)}. Give it {before:,} again for the schedule that it began "
        "with."
    )


def _plain(value: object) -> object:
    """What JSON does not have, such that it is the same in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return str(value) if isinstance(value, (PathLike, Enum)) else type(value).__qualname__
