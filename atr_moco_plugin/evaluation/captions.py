"""Captions as batches of token ids, each distinct caption once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from atr_moco_plugin.tokens import valid_first


class CaptionBatches(NamedTuple):
    """Captions in batches, equal captions once.

    Equal captions then have equal embeddings and scores to the last bit and count as a tie. Encoded
    in two batches they would differ by rounding, and chance would decide which one is better.

    Attributes:
        batches: ``(input_ids [B, L], mask [B, L])`` of the distinct captions, by length.
        rows: ``[C]`` int64, the row of each caption in them.
    """

    batches: list[tuple[Tensor, Tensor]]
    rows: Tensor


def distinct_captions(input_ids: Tensor, mask: Tensor, batch_size: int) -> CaptionBatches:
    """Batches of C captions without repetitions, sorted by length.

    Args:
        input_ids: ``[C, L]`` int64.
        mask: ``[C, L]`` bool, the valid tokens first in each row.
        batch_size: captions a batch.
    """
    lengths = mask.sum(dim=1)
    # By length first: the distinct rows come out sorted.
    keys = torch.cat([lengths[:, None], input_ids.masked_fill(~mask, 0)], dim=1)
    keys, rows = torch.unique(keys, dim=0, return_inverse=True)
    batches = []
    for part in torch.split(keys, batch_size):
        ids = part[:, 1 : 1 + int(part[-1, 0])]
        batches.append((ids, valid_first(part[:, 0], ids.size(1))))
    return CaptionBatches(batches, rows)
