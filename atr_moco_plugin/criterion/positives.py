"""Which columns are positives of which rows."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from atr_moco_plugin.errors import InputError

PositivesMode = Literal["pair", "clip", "clip_or_caption"]
MODES: tuple[str, ...] = get_args(PositivesMode)


def positive_pairs(
    clip_ids: Tensor,
    caption_ids: Tensor,
    column_clip_ids: Tensor,
    column_caption_ids: Tensor,
    mode: PositivesMode,
) -> Tensor:
    """Mark every column that holds a positive of a row.

    An item is one (clip, caption) pair. Two items are positives of each other when they are of one
    clip (``clip``, as in ALBEF and BLIP), when they are of one clip or of one caption text
    (``clip_or_caption``), or only when both agree (``pair``, what a loss without ids assumes).
    The relation is symmetric, so one matrix serves both directions, and an item is always a
    positive of itself.

    Args:
        clip_ids: ``[B]`` int64, clips of the rows.
        caption_ids: ``[B]`` int64, captions of the rows.
        column_clip_ids: ``[M]`` int64, clips of the columns.
        column_caption_ids: ``[M]`` int64, captions of the columns.
        mode: ``pair``, ``clip`` or ``clip_or_caption``.

    Returns:
        ``[B, M]`` bool.

    Raises:
        InputError: for an unknown ``mode``.
    """
    same_clip = clip_ids[:, None] == column_clip_ids[None, :]
    if mode == "clip":
        return same_clip
    same_caption = caption_ids[:, None] == column_caption_ids[None, :]
    if mode == "clip_or_caption":
        return same_clip | same_caption
    if mode == "pair":
        return same_clip & same_caption
    raise InputError(f"`positives` is {mode!r}, but must be one of {', '.join(MODES)}.")
