"""Hubs: rows that are near to very many others, and rows that are near to none."""

from __future__ import annotations

import torch
from torch import Tensor


def hub_figures(hits: Tensor, items: int) -> dict[str, float | None]:
    """Figures of the k-occurrence, the number of queries that have an item among their first k.

    Args:
        hits: ``[Q, k]`` int64, items of each query.
        items: N.

    Returns:
        ``skewness`` of the k-occurrence (``None`` where it is the same for all items), ``never``,
        the percentage of items in no list, and ``largest``, the largest k-occurrence.
    """
    counts = torch.bincount(hits.flatten(), minlength=items).double()
    off = counts - counts.mean()
    variance = float(off.square().mean())
    return {
        "skewness": float(off.pow(3).mean()) / variance**1.5 if variance > 0 else None,
        "never": 100 * float((counts == 0).double().mean()),
        "largest": int(counts.max()),
    }
