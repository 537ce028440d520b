"""Audio-text matching loss (ATM) and its hard negatives, as pure functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def prior_entropy(negatives: int) -> float:
    """ATM loss of a head that always answers the label prior, in nats.

    Args:
        negatives: of each item: 0.6365 for 2, and log 2 = 0.6931 for 1.
    """
    n = negatives
    return math.log(n + 1) - n / (n + 1) * math.log(n)


def hard_negatives(
    similarity: Tensor, positives: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw one negative a row with probability ``softmax(similarity)`` over the admissible columns.

    Positives are masked before the softmax, so that a very low temperature cannot underflow the
    distribution of the others to zero (ALBEF issues 18, 93, 131 are the other order).

    Args:
        similarity: ``[B, M]`` float, already divided by the temperature.
        positives: ``[B, M]`` bool, columns that must not be drawn.
        generator: source of randomness on the device of ``similarity``; the global one if None.

    Returns:
        ``[B]`` int64 column indices, -1 where a row has no admissible negative.
    """
    # NaN would stop the draw with an error of its own, and on a GPU the process; the loss of such a
    # batch is NaN as well, for whoever checks it.
    logits = similarity.detach().float().nan_to_num().masked_fill(positives, float("-inf"))
    empty = positives.all(dim=1)
    # A row of -inf alone has no softmax; any finite row does, since its draw is thrown away.
    logits = logits.masked_fill(empty[:, None], 0.0)
    weights = logits.softmax(dim=1)
    # The draws of `torch.multinomial`, to the bit, without its checks, for which the host would
    # wait: the first of exponential clocks to ring, each at the rate of its weight.
    clocks = torch.empty_like(weights).exponential_(generator=generator)
    drawn = (weights / clocks).argmax(dim=1)
    return drawn.masked_fill(empty, -1)


def atm_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Two-way cross-entropy over the pairs that exist.

    Args:
        logits: ``[P, 2]`` float, index 1 = the pair matches.
        labels: ``[P]`` int64, 1 for a matching pair.
        valid: ``[P]`` bool, ``False`` where no admissible negative was found.

    Returns:
        Scalar float32, the mean over the valid pairs.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return (losses * valid).sum() / valid.sum().clamp(min=1)
