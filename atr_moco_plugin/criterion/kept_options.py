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
    if before is None or before == now or not (moved := _by_length(criterion, max(before, now))):
        return None
    return (
        f"The run was to have {before:,} steps and goes on with {now:,}, which moves what goes by "
        f"its length: {', '.join(moved)}. Give it {before:,} again for the schedule that it began "
        "with."
    )


def steps_of_another_run(criterion: Any, made: int, now: int) -> str | None:
    """What to warn of where a criterion counts steps that a run does not, since it was trained
    before: ``None`` where nothing depends on the run's length.

    Args:
        criterion: as the run begins.
        made: optimizer steps that the run has made until then, those left out among them.
        now: ``total_steps`` of the run.
    """
    steps = int(getattr(criterion, "num_steps", 0))
    # Whatever is at its end by then should be at its beginning, so that no length is too short.
    if steps <= made or not (moved := _by_length(criterion, 2 * steps + now)):
        return None
    return (
        f"The criterion has made {steps:,} steps, but this run of {now:,} begins at {made:,}: what "
        f"goes by its length is too far on: {', '.join(moved)}. Train on in one longer run that is "
        "resumed, or make a new criterion around the model for a second one."
    )


def _by_length(criterion: Any, longest: int) -> list[str]:
    """What of a criterion still goes by the length of its run."""
    config, steps = criterion.config, int(getattr(criterion, "num_steps", 0))
    found = []
    if getattr(config, "momentum_schedule", None) == "cosine":
        found.append("the momentum factor (`momentum_schedule: cosine`)")
    # It falls over the first half of a run.
    if hasattr(config, "gamma_min") and 2 * steps < longest:
        found.append("gamma of `sogclr`")
    if getattr(getattr(criterion, "matching_start", None), "looks", False):
        found.append("the first step that may match (`atm_start: auto`)")
    return found


def _plain(value: object) -> object:
    """What JSON does not have, such that it is the same in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return str(value) if isinstance(value, (PathLike, Enum)) else type(value).__qualname__
