"""Nearest neighbours, exact and in bounded memory, and how many two sets of embeddings share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SCORES = 2**24
# Candidates beyond k, among which the order is settled in float64.
_MORE = 8


class Neighbours(NamedTuple):
    """The k nearest rows of some rows.

    Attributes:
        distances: ``[Q, k]`` float64, ascending.
        rows: ``[Q, k]`` int64, row numbers.
    """

    distances: Tensor
    rows: Tensor


@torch.no_grad()
def nearest(x: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The k rows that are nearest to some of them, by Euclidean distance, the row itself left out.

    Candidates come from cosines in the rows' own precision; their distances are taken again in
    float64 from the differences, since ``2 - 2 cos`` loses the digits of near duplicates.

    Args:
        x: ``[N, d]`` of length 1.
        queries: ``[Q]`` int64, row numbers of ``x``.
        k: at most N - 1.

    Example:
        >>> nearest(torch.eye(3), torch.tensor([0]), k=2).distances.square()
        tensor([[2.0000, 2.0000]], dtype=torch.float64)
    """
    n = len(x)
    candidates = min(k + _MORE, n - 1)
    distances, rows = [], []
    for part in queries.split(max(_SCORES // n, 1)):
        cosines = x[part] @ x.T
        cosines[torch.arange(len(part)), part] = -torch.inf
        found = cosines.topk(candidates, dim=1).indices
        # A few hundred rows at a time: [n, candidates, d] differences.
        exact = torch.cat(
            [
                (x[f].double() - x[q, None].double()).square().sum(dim=2).sqrt()
                for q, f in zip(part.split(256), found.split(256), strict=True)
            ]
        )
        values, order = exact.sort(dim=1, stable=True)
        distances.append(values[:, :k])
        rows.append(found.gather(1, order[:, :k]))
    return Neighbours(torch.cat(distances), torch.cat(rows))


def mutual_neighbours(audio: Tensor, text: Tensor, k: int) -> float:
    """Mean share of the k nearest neighbours of an item that both sets of embeddings agree on.

    The mutual k-NN alignment of Huh et al. (2024), with all rows as the gallery. Unrelated
    embeddings have ``k / (N - 1)``.

    Args:
        audio: ``[N, d]`` of length 1.
        text: ``[N, e]`` of length 1; row i is of the same item as row i of ``audio``.
        k: at most N - 1.

    Returns:
        A value in [0, 1].
    """
    everything = torch.arange(len(audio))
    ours, theirs = (nearest(x, everything, k).rows for x in (audio, text))
    shared = sum(
        int((a[:, :, None] == t[:, None, :]).sum())
        for a, t in zip(ours.split(4096), theirs.split(4096), strict=True)
    )
    return shared / (len(audio) * k)
