"""The loss of SogCLR and FastCLIP as pure functions: gradients made by hand from running sums."""

from __future__ import annotations

import torch
from torch import Tensor


def log_partition(scores: Tensor, negatives: Tensor, temperature: Tensor) -> Tensor:
    """``log g_i``, with ``g_i = mean_j exp(s_ij / tau)`` over the negatives of query i.

    Args:
        scores: ``[B, M]``, cosines s_ij.
        negatives: ``[B, M]`` bool.
        temperature: one element, tau.

    Returns:
        ``[B]`` without a gradient; ``-inf`` for a row without a negative.
    """
    logits = (scores.detach() / temperature.detach()).masked_fill(~negatives, float("-inf"))
    return logits.logsumexp(dim=1) - _counts(negatives, logits.dtype).log()


def global_contrastive_loss(
    scores: Tensor,
    own: Tensor,
    negatives: Tensor,
    log_u: Tensor,
    temperature: Tensor,
    rho: float | Tensor,
) -> Tensor:
    """One side of the robust global contrastive loss (SogCLR, Yuan et al. 2022; FastCLIP v3, Wei et
    al. 2024, eq. RGCL-g), the mean of ``tau (log u_i + rho) - s_ii`` over the queries.

    Its gradients are made by hand, since ``u_i`` stands for a mean over all data. With ``w_ij =
    exp(s_ij / tau) / (n_i u_i)``, without a gradient, they are those of ``mean_i (sum_j w_ij s_ij -
    s_ii)`` and, of tau, ``mean_i (log u_i + rho - sum_j w_ij s_ij / tau)``, over the n_i negatives
    j of query i. A query without negatives is left out: it adds 0.

    The papers have ``s_ij - s_ii`` in place of ``s_ij``, and in u_i: the same where the weights of
    a query sum to 1.

    Args:
        scores: ``[B, M]`` float32, cosines s_ij.
        own: ``[B]``, s_ii.
        negatives: ``[B, M]`` bool.
        log_u: ``[B]``, the logarithms of the running sums, with this batch in them.
        temperature: one element, tau.
        rho: pulls the temperature down; a number, or ``[B]``, one for each query.

    Returns:
        Scalar.
    """
    tau, used = temperature.squeeze().to(scores.dtype), negatives.any(dim=1)
    with torch.no_grad():
        logits = scores / tau
        counts = _counts(negatives, logits.dtype)
        log_u = torch.where(used, log_u, 0.0)
        logs = logits - counts.log()[:, None] - log_u[:, None]
        weights = logs.masked_fill(~negatives, float("-inf")).exp()
        slope = torch.where(used, log_u + rho - (weights * logits).sum(dim=1), 0.0).mean()
        value = torch.where(used, tau * (log_u + rho) - own, 0.0).mean()
    own = torch.where(used, own, 0.0)
    surrogate = ((weights * scores).sum(dim=1) - own).mean() + slope * tau
    return value + (surrogate - surrogate.detach())


def _counts(negatives: Tensor, dtype: torch.dtype) -> Tensor:
    return negatives.sum(dim=1).clamp(min=1).to(dtype)
