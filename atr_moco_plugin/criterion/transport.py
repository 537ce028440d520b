"""Optimal transport over a learned distance, as pure functions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atr_moco_plugin.criterion.atc import atc_targets
from atr_moco_plugin.tensors.float32 import cosines

_UNDER_ROOT = 1e-6  # of D^2, which is at most 4 where all weights are 1


def learned_distances(audio: Tensor, text: Tensor, factor: Tensor) -> Tensor:
    """``D_ij = sqrt(|L (a_i - u_j)|^2 + 1e-6)``; with ``L = diag(sqrt(m))`` the distance of m-LTM.

    Args:
        audio: ``[N, d]`` unit-norm audio embeddings.
        text: ``[M, d]`` unit-norm text embeddings.
        factor: ``[d, d]`` L, or ``[d]`` its diagonal.

    Returns:
        ``[N, M]`` float32, computed in float32 whatever the autocast state.
    """
    with torch.autocast(audio.device.type, enabled=False):
        a, u = (
            x.float() * factor if factor.dim() == 1 else cosines(x, factor) for x in (audio, text)
        )
        squares = a.square().sum(dim=1)[:, None] + u.square().sum(dim=1) - 2 * cosines(a, u)
        return (squares.clamp(min=0) + _UNDER_ROOT).sqrt()


def log_plan(scores: Tensor, iterations: int) -> Tensor:
    """Logarithm of the entropic transport plan between two uniform distributions (Cuturi 2013).

    Args:
        scores: ``[N, M]``, the negative costs over the regularisation.
        iterations: of Sinkhorn, each over the columns and then over the rows. The gradient goes
            through all of them; of each only N + M numbers are kept.

    Returns:
        ``[N, M]``; rows of the plan sum to 1 / N, columns to 1 / M in the limit.
    """
    rows, columns = scores.shape
    f, g = scores.new_zeros(rows), scores.new_zeros(columns)
    for _ in range(iterations):
        g = -math.log(columns) - _log_sums(scores.T, f)
        f = -math.log(rows) - _log_sums(scores, g)
    return scores + f[:, None] + g


def transport_loss(log_plan: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy between the plan and the pairs that belong together, of some of its rows.

    Args:
        log_plan: ``[B, N]``, the rows of B of the N items.
        positives: ``[B, N]`` bool, at least one ``True`` a row; they share the row's mass.

    Returns:
        Scalar, ``-1 / B sum_ij y_ij log pi_ij``; log N where the plan is the targets.
    """
    return -(atc_targets(positives) * log_plan).sum(dim=1).mean()


def metric_rank(factor: Tensor) -> Tensor:
    """How many directions of the space a distance uses: ``(tr M)^2 / tr M^2``, from 1 to d.

    Args:
        factor: ``[d, d]`` L of ``M = L^T L``, or ``[d]`` its diagonal.
    """
    squares = factor.square() if factor.dim() == 1 else cosines(factor, factor)
    trace = squares.sum() if factor.dim() == 1 else squares.trace()
    return trace.square() / squares.square().sum()


def _log_sums(scores: Tensor, potential: Tensor) -> Tensor:
    """``logsumexp(scores + potential, dim=1)`` that keeps no matrix but ``scores``."""
    sums: Tensor = _LogSums.apply(scores, potential)
    return sums


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, potential: Tensor) -> Tensor:
        sums = torch.logsumexp(scores + potential, dim=1)
        ctx.save_for_backward(scores, potential, sums)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        scores, potential, sums = ctx.saved_tensors
        shares = (scores + potential - sums[:, None]).exp_().mul_(grad[:, None])
        return shares, shares.sum(dim=0)
