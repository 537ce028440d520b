"""Refusing ids that would pair other items than those of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError


def check_ids(
    rows: int, clip_ids: Tensor, caption_ids: Tensor, *, any_device: bool = False
) -> None:
    """Refuse ids that would pair other items than those of a batch.

    Args:
        rows: B, the items of the batch.
        clip_ids: ``[B]``, or ``[B, 2]`` of mixtures. Integers; on the CPU they are looked at, too.
        caption_ids: of the same shape.
        any_device: look at ids on a device too, for which the host waits.

    Raises:
        InputError: for ids of another shape, ids that are no integers, and negative ones, which
            stand for "no second clip" and for rows that are nobody's.
    """
    for name, ids in (("clip_ids", clip_ids), ("caption_ids", caption_ids)):
        if ids.dtype in (torch.bool, torch.uint64) or ids.is_floating_point() or ids.is_complex():
            raise InputError(
                f"`{name}` is of type {ids.dtype}, which does not hold every id exactly: make it "
                "of integers with dtype=torch.int64."
            )
        if tuple(ids.shape) not in ((rows,), (rows, 2)):
            raise InputError(
                f"`{name}` has the shape {list(ids.shape)}, but the batch has {rows} items: give "
                f"[{rows}], an id for each, or [{rows}, 2] for mixtures of two."
            )
        first = ids if ids.dim() == 1 else ids[:, 0]
        looks = rows and (any_device or ids.device.type == "cpu")
        if looks and bool((first < 0).any()):
            raise InputError(
                f"`{name}` has {int(first.min())}: ids are 0 or above, and items without one need "
                "an id of their own each."
            )
    if clip_ids.shape != caption_ids.shape:
        raise InputError(
            f"`clip_ids` has the shape {list(clip_ids.shape)} and `caption_ids` "
            f"{list(caption_ids.shape)}: mixtures have two of both."
        )
