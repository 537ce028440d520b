"""The moving average of 200 million parameters.

python -m benchmarks.momentum [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn

from atr_moco_plugin.momentum import MomentumCopy
from benchmarks import harness
from benchmarks.harness import Machine, Row

MOMENTUM = 0.995


class _OneByOne:
    """BLIP's loop over the parameters, which makes new tensors and binds them."""

    def __init__(self, online: nn.Module) -> None:
        self.copy = deepcopy(online).requires_grad_(False)

    def update(self, online: nn.Module) -> None:
        for average, current in zip(self.copy.parameters(), online.parameters(), strict=True):
            average.data = average.data * MOMENTUM + current.data * (1.0 - MOMENTUM)


def rows(machine: Machine, tiny: bool = False) -> Iterator[Row]:
    """See :mod:`benchmarks.harness`."""
    width, layers = (8, 2) if tiny else (768, 28)
    # The parameters of a transformer layer: four square matrices, two of the feed-forward block,
    # their biases, two layer norms. 28 of them have 198 million.
    online = nn.Sequential(
        *(nn.TransformerEncoderLayer(width, 1, 4 * width) for _ in range(layers))
    ).to(machine.device)
    ours, plain = MomentumCopy(online), _OneByOne(online)
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(1.0)
    count = sum(p.numel() for p in online.parameters())
    seconds = harness.fastest(
        [lambda: ours.update(online, MOMENTUM), lambda: plain.update(online)], machine.device
    )
    pairs = zip(ours.module.parameters(), plain.copy.parameters(), strict=True)
    yield Row(
        name=f"EMA of {count / 1e6:.0f} M parameters",
        baseline_name="floor",
        ours=seconds[0],
        baseline=machine.floor(moved=12 * count),
        floor=machine.floor(moved=12 * count),
        floor_name="bandwidth: two reads and one write of every parameter",
        error=max(harness.largest_error(a, b) for a, b in pairs),
        error_name="weights, of one by one",
        target=1.5,
        cost=True,
    )
    yield Row(
        name=f"EMA of {count / 1e6:.0f} M parameters",
        baseline_name="one operation a parameter, rebinding (BLIP)",
        ours=seconds[0],
        baseline=seconds[1],
        floor=machine.floor(moved=12 * count),
        floor_name="as above",
    )


if __name__ == "__main__":
    harness.run([rows], __doc__.splitlines()[0])
