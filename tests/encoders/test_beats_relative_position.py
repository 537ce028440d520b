"""Distance buckets and the bias built from them, against loops over all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from atr_moco_plugin.encoders.beats.relative_position import (
    RelativePositionBias,
    distance_buckets,
)

CPU = torch.device("cpu")


def bucket(distance: int, num_buckets: int, max_distance: int) -> int:
    """T5's bidirectional bucket of one distance, in plain Python."""
    side = num_buckets // 2
    exact = side // 2
    first, magnitude = (side if distance > 0 else 0), abs(distance)
    if magnitude < exact:
        return first + magnitude
    growth = math.log(magnitude / exact) / math.log(max_distance / exact)
    return first + min(side - 1, exact + int(growth * (side - exact) + 1e-6))


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 64), (320, 800), (4, 2), (16, 50)])
def test_buckets_of_every_distance(num_buckets: int, max_distance: int) -> None:
    expected = [
        bucket(distance, num_buckets, max_distance)
        for distance in range(-max_distance, max_distance + 1)
    ]
    assert distance_buckets(num_buckets, max_distance, CPU).tolist() == expected


@pytest.mark.parametrize("tokens", [1, 2, 8, 40, 200])  # shorter and longer than max_distance
def test_bias_of_every_pair(tokens: int) -> None:
    module = RelativePositionBias(num_buckets=16, max_distance=50, heads=3)
    bias = module(tokens)
    buckets = torch.tensor([[bucket(k - q, 16, 50) for k in range(tokens)] for q in range(tokens)])
    assert torch.equal(bias, module.weight[buckets].permute(2, 0, 1))


def test_gradient_counts_the_pairs_of_a_bucket() -> None:
    module = RelativePositionBias(num_buckets=16, max_distance=50, heads=2)
    module(30).sum().backward()
    pairs = torch.zeros(16)
    for query in range(30):
        for key in range(30):
            pairs[bucket(key - query, 16, 50)] += 1
    assert torch.equal(module.weight.grad, pairs[:, None].expand(16, 2))
