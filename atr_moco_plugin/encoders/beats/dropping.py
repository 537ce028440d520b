"""Which patches a training step keeps: whole time steps and whole rows of mel bands.

One pattern serves all clips of a batch, so that what is kept is one dense batch. PaSST
(arXiv:2110.05069) draws the columns of a batch of equally long clips; here clips differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def steps_kept(steps: int, share: float) -> int:
    """How many of a clip's time steps are kept: all but ``share`` of them, rounded down. At least
    one of one or more, for any share below 1."""
    return steps - math.floor(share * steps)


def draw_steps(steps: Iterable[int], share: float) -> Tensor:
    """Draw the time steps that a batch keeps, with the global generator of the CPU.

    Of each clip exactly :func:`steps_kept` are kept, whatever its length: the steps between the end
    of one clip and that of the next longer one lose their own share. For clips of one length this
    is a uniform draw.

    Args:
        steps: time steps of each clip, at least 1.
        share: of the steps that are dropped, in ``[0, 1)``.

    Returns:
        ``[K]`` int64 on the CPU, increasing, below the greatest of ``steps``.
    """
    drawn: list[Tensor] = []
    start = 0
    for end in sorted(set(steps)):
        count = steps_kept(end, share) - steps_kept(start, share)
        drawn.append(start + torch.randperm(end - start, device="cpu")[:count])
        start = end
    return torch.cat(drawn).sort().values


def draw_patches(steps: Iterable[int], bands: int, share: float, dropped_bands: int) -> Tensor:
    """Draw the tokens that a batch keeps: a grid of time steps and rows.

    Args:
        steps: as of :func:`draw_steps`.
        bands: rows of a time step.
        share: of the time steps that are dropped.
        dropped_bands: rows that are dropped, fewer than ``bands``.

    Returns:
        ``[K]`` int64 on the CPU, increasing: indices of tokens, of which the rows of one time step
        are adjacent.
    """
    rows = torch.randperm(bands, device="cpu")[: bands - dropped_bands].sort().values
    return (draw_steps(steps, share)[:, None] * bands + rows).flatten()
