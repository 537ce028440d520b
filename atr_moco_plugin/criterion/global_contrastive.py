"""The loss of SogCLR and FastCLIP as pure functions: gradients made by hand from running sums."""

from __future__ import annotations

import torch
from torch import Tensor


def log_partition(differences: Tensor, negatives: Tensor, temperature: Tensor) -> Tensor:
    """``log g_i``, with ``g_i = mean_j exp((s_ij - s_ii) / tau)`` over the negatives of query i.

    Args:
        differences: ``[B, M]``, ``s_ij - s_ii``.
        negatives: ``[B, M]`` bool.
        temperature: one element, tau.

    Returns:
        ``[B]`` without a gradient; ``-inf`` for a row without a negative.
    """
    h = (differences.detach() / temperature.detach()).masked_fill(~negatives, float("-inf"))
    return h.logsumexp(dim=1) - _counts(negatives, h.dtype).log()


def global_contrastive_loss(
    differences: Tensor, negatives: Tensor, log_u: Tensor, temperature: Tensor, rho: float | Tensor
) -> Tensor:
    """One side of the robust global contrastive loss (SogCLR, Yuan et al. 2022; FastCLIP v3, Wei et
    al. 2024, eq. RGCL-g), the mean of ``tau (log u_i + rho)`` over the queries.

    Its gradients are made by hand, since ``u_i`` stands for a sum over all data. With ``h_ij =
    (s_ij - s_ii) / tau`` and ``w_ij = exp(h_ij) / (n_i u_i)``, both without a gradient, they are
    those of ``mean_i sum_j w_ij (s_ij - s_ii)`` and, of tau, ``mean_i (log u_i + rho - sum_j w_ij
    h_ij)``, over the n_i negatives j of query i. A query without negatives is left out: it adds 0.

    Args:
        differences: ``[B, M]`` float32, ``s_ij - s_ii``.
        negatives: ``[B, M]`` bool.
        log_u: ``[B]``, the logarithms of the running sums, with this batch in them.
        temperature: one element, tau.
        rho: pulls the temperature down.

    Returns:
        Scalar.
    """
    tau, used = temperature.squeeze().to(differences.dtype), negatives.any(dim=1)
    with torch.no_grad():
        h = differences / tau
        counts = _counts(negatives, h.dtype)
        log_u = torch.where(used, log_u, 0.0)
        logs = (h - counts.log()[:, None] - log_u[:, None]).masked_fill(~negatives, float("-inf"))
        weights = logs.exp()
        slope = torch.where(used, log_u + rho - (weights * h).sum(dim=1), 0.0).mean()
        value = tau * torch.where(used, log_u + rho, 0.0).mean()
    surrogate = (weights * differences).sum(dim=1).mean() + slope * tau
    return value + (surrogate - surrogate.detach())


def _counts(negatives: Tensor, dtype: torch.dtype) -> Tensor:
    return negatives.sum(dim=1).clamp(min=1).to(dtype)
