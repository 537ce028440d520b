"""Attention bias by the distance between tokens, in logarithmic buckets (T5, arXiv:1910.10683)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class RelativePositionBias(nn.Module):
    """One learned bias a head and distance bucket, shared by all layers of an encoder.

    Attributes:
        weight: ``[num_buckets, heads]`` parameter.
    """

    def __init__(self, num_buckets: int, max_distance: int, heads: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(num_buckets, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the biases anew, in place."""
        nn.init.normal_(self.weight, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """All of it are biases."""
        return {"weight"}

    def forward(self, tokens: int) -> Tensor:
        """Bias of every query for every key: ``[heads, tokens, tokens]``."""
        device = self.weight.device
        buckets = distance_buckets(self.weight.size(0), self.max_distance, device)
        distances = torch.arange(1 - tokens, tokens, device=device)
        distances = distances.clamp(-self.max_distance, self.max_distance) + self.max_distance
        # One value a distance, then a window of them for each query: the last query sees the
        # most distant keys before it, hence the flip.
        values = embedding(buckets[distances], self.weight).t()
        return values.unfold(1, tokens, 1).flip(1)


@lru_cache(maxsize=16)
def distance_buckets(num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Bucket of every distance ``key - query`` from ``-max_distance`` to ``max_distance``.

    Half of the buckets are for keys after the query. Of each half, the first half holds one
    distance each and the rest grow logarithmically up to ``max_distance``, where they saturate.

    Returns:
        ``[2 * max_distance + 1]`` int64 on ``device``.
    """
    side = num_buckets // 2
    exact = side // 2
    # On the CPU whatever the device, so that rounding never moves a bucket's border.
    distance = torch.arange(-max_distance, max_distance + 1, device="cpu")
    magnitude = distance.abs()
    log_ratio = (magnitude.clamp_min(exact).float() / exact).log() / math.log(max_distance / exact)
    distant = (exact + (log_ratio * (side - exact)).long()).clamp_max(side - 1)
    bucket = torch.where(magnitude < exact, magnitude, distant) + side * (distance > 0)
    return bucket.to(device)
