"""Which columns are positives of which rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from atr_moco_plugin.criterion.teachers import MIXTURES
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

    An item may be a mixture of two pairs, and then has the ids of both: it is a positive of
    whatever one of them is a positive of. For example a mixture of a dog and rain is one of other
    captions of that dog, and of a mixture of that rain and a bell. A mixture of two clips with one
    caption of its own has a second clip id and no second caption id.

    Args:
        clip_ids: ``[B]`` int64, clips of the rows; or ``[B, 2]``, of mixtures, where the second is
            -1 for an item that has none, and equal to no other.
        caption_ids: captions of the rows, of the same shape.
        column_clip_ids: ``[M]`` or ``[M, 2]`` int64, clips of the columns.
        column_caption_ids: captions of the columns, of the same shape.
        mode: ``pair``, ``clip`` or ``clip_or_caption``.

    Returns:
        ``[B, M]`` bool.

    Raises:
        InputError: for an unknown ``mode``.
    """
    if mode not in MODES:
        raise InputError(f"`positives` is {mode!r}, but must be one of {', '.join(MODES)}.")
    if clip_ids.dim() == column_clip_ids.dim() == 1:
        return _related(clip_ids, caption_ids, column_clip_ids, column_caption_ids, mode)
    found = None
    for of_row in _parts(clip_ids, caption_ids):
        for of_column in _parts(column_clip_ids, column_caption_ids):
            related = _related(*of_row, *of_column, mode, _equal_ids)
            found = related if found is None else found | related
    assert found is not None
    return found


def join_ids(*ids: Tensor) -> Tensor:
    """Ids one after the other; those of one clip a row get a second -1 where others have two.

    Args:
        ids: ``[N]`` or ``[N, 2]`` int64 each.

    Returns:
        ``[sum of N]``, or ``[sum of N, 2]`` where any had two.
    """
    if all(x.dim() == 1 for x in ids):
        return torch.cat(ids)
    return torch.cat([x if x.dim() == 2 else F.pad(x[:, None], (0, 1), value=-1) for x in ids])


def check_shared_clips(criterion: Any, captions_per_clip: int, *, mixes: bool) -> None:
    """Refuse batches whose items are each other's positives in ways that a criterion cannot see.

    Args:
        criterion: with ``config.positives``, as those of this package are.
        captions_per_clip: captions of each clip in a batch.
        mixes: whether clips are mixed, so that an item has two ids.

    Raises:
        InputError: the criterion has no such option, has teachers, which know no mixture, or is to
            take the other captions of a clip for negatives.
    """
    if captions_per_clip == 1 and not mixes:
        return
    if mixes and getattr(getattr(criterion, "config", None), "teachers", None):
        raise InputError(MIXTURES)
    key = "dataset.captions_per_clip" if captions_per_clip > 1 else "dataset.mix"
    mode = getattr(getattr(criterion, "config", None), "positives", None)
    if mode is None:
        raise InputError(
            f"`{key}` needs a criterion that knows positives by ids, but "
            f"{type(criterion).__name__} has no option `positives`: leave it out or take a "
            "criterion of this package."
        )
    if captions_per_clip > 1 and mode == "pair":
        raise InputError(
            f"`{key}` is {captions_per_clip}, but `criterion.config.positives` is pair, which "
            "takes the other captions of a clip for negatives: set positives to clip or "
            "clip_or_caption."
        )


def _parts(clip_ids: Tensor, caption_ids: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    if clip_ids.dim() == 1:
        return [(clip_ids, caption_ids)]
    return list(zip(clip_ids.unbind(1), caption_ids.unbind(1), strict=True))


def _related(
    clips: Tensor,
    captions: Tensor,
    column_clips: Tensor,
    column_captions: Tensor,
    mode: PositivesMode,
    equal: Callable[[Tensor, Tensor], Tensor] = torch.eq,
) -> Tensor:
    same_clip = equal(clips[:, None], column_clips[None, :])
    if mode == "clip":
        return same_clip
    same_caption = equal(captions[:, None], column_captions[None, :])
    return same_clip | same_caption if mode == "clip_or_caption" else same_clip & same_caption


def _equal_ids(rows: Tensor, columns: Tensor) -> Tensor:
    """Which ids are equal; one that is not there equals none."""
    return (rows == columns) & (rows >= 0)
