"""Clips that ``Trainer``'s collator leaves out: how many a run puts up with, and their names."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from atr_moco_plugin.data.loading.bad_clips import tolerated_clips
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.safety.finite import by_number
from atr_moco_plugin.safety.message import NAMED


def limit_left_out(ids: Collection[int], dataset: Any, where: str, limit: int | None) -> None:
    """Stop where more clips than a number were left out.

    Args:
        ids: of the clips.
        dataset: that they are of.
        where: of what they were left out, for the message.
        limit: the number; None allows one in a thousand examples, at least 10.

    Raises:
        InputError: naming some of them.
    """
    if limit is None:
        limit = tolerated_clips(len(dataset) if isinstance(dataset, Sized) else 0)
    if len(ids) > limit:
        raise InputError(
            f"More than {limit} clips could not be used and were left out of {where}, among "
            f"them {names_of_clips(ids, dataset)}: mend them or raise `max_bad_clips`."
        )


def names_of_clips(ids: Collection[int], dataset: Any) -> str:
    """The first of these clips, as their data set calls them.

    Args:
        ids: of the clips.
        dataset: with ``name_clips(ids)``; without, they are named by their ids.
    """
    names = getattr(dataset, "name_clips", by_number)(sorted(ids))
    return listed([str(names.get(number, number)) for number in sorted(ids)], NAMED)
