"""The global contrastive loss against its formulas in float64, one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import global_contrastive_loss
from atr_moco_plugin.criterion.global_contrastive import log_partition

RHO = 6.5


def unit(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 8, generator=generator, dtype=torch.float64), dim=1)


def formulas(
    query: Tensor, columns: Tensor, negatives: Tensor, u: Tensor, tau: float
) -> tuple[float, Tensor, Tensor, float]:
    """Value, gradients of queries and columns, gradient of tau, as they are written down."""
    value, slope = 0.0, 0.0
    grad_query, grad_columns = torch.zeros_like(query), torch.zeros_like(columns)
    for i, x in enumerate(query):
        own = [j for j in range(len(columns)) if negatives[i, j]]
        if not own:
            continue
        total = 0.0
        for j in own:
            logit = float(x @ columns[j]) / tau
            w = math.exp(logit) / (len(own) * float(u[i]))
            total += w * logit
            grad_query[i] += w * columns[j]
            grad_columns[j] += w * x
        grad_query[i] -= columns[i]
        grad_columns[i] -= x
        value += tau * (math.log(float(u[i])) + RHO) - float(x @ columns[i])
        slope += math.log(float(u[i])) + RHO - total
    n = len(query)
    return value / n, grad_query / n, grad_columns / n, slope / n


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tau", [0.03, 0.07, 0.5])
def test_value_and_gradients_are_the_written_ones(tau: float, dtype: torch.dtype) -> None:
    query, columns = unit(4, 0), unit(6, 1)
    negatives = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) < 0.7
    negatives[:, :4] &= ~torch.eye(4, dtype=torch.bool)
    negatives[3] = False  # it is left out
    u = torch.rand(4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    value, grad_query, grad_columns, slope = formulas(query, columns, negatives, u, tau)
    x, y = (z.to(dtype).requires_grad_() for z in (query, columns))
    temperature = torch.tensor([tau], dtype=dtype, requires_grad=True)
    scores, log_u = x @ y.T, u.log().to(dtype)
    loss = global_contrastive_loss(scores, scores.diag(), negatives, log_u, temperature, RHO)
    loss.backward()
    exact = {"atol": 1e-12, "rtol": 1e-10} if dtype == torch.float64 else {}
    close = exact or {"atol": 1e-3, "rtol": 1e-4}
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert_close(x.grad.double(), grad_query, **close)
    assert_close(y.grad.double(), grad_columns, **close)
    assert temperature.grad.item() == pytest.approx(slope, rel=1e-3 if not exact else 1e-10)


def test_with_the_exact_sums_they_are_the_gradients_of_the_loss() -> None:
    """tau (log g + rho) - s_ii, differentiated by autograd through all of it; in the papers' form,
    with s_ii in g."""
    x, y = unit(5, 0).requires_grad_(), unit(5, 1).requires_grad_()
    tau = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    negatives = ~torch.eye(5, dtype=torch.bool)
    differences = x @ y.T - (x * y).sum(dim=1, keepdim=True)
    g = ((differences / tau).exp() * negatives).sum(dim=1) / 4
    plain = (tau * (g.log() + RHO)).mean()
    expected = torch.autograd.grad(plain, [x, y, tau], retain_graph=True)
    scores = x @ y.T
    log_u = log_partition(scores, negatives, tau)
    found = global_contrastive_loss(scores, scores.diag(), negatives, log_u, tau, RHO)
    assert_close(found, plain)
    assert_close(torch.autograd.grad(found, [x, y, tau]), expected)


def test_the_lowest_temperature_does_not_overflow() -> None:
    """The logits reach 100, whose exponential float32 cannot hold."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    y = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    tau, negatives = torch.tensor([0.01], requires_grad=True), ~torch.eye(2, dtype=torch.bool)
    scores = x @ y.T
    log_u = log_partition(scores, negatives, tau)
    assert_close(log_u, torch.tensor([100.0, 100.0]))
    # Of a first visit long ago, when the negative was far: the weight is bounded by 1 / gamma.
    old = torch.logaddexp(log_u + math.log(0.2), torch.tensor(-300.0))
    global_contrastive_loss(scores, scores.diag(), negatives, old, tau, RHO).backward()
    assert all(bool(z.grad.isfinite().all()) for z in (x, y, tau))
    # y_0 is the negative of x_1, by 5, and the positive of x_0: means over two queries.
    assert_close(y.grad[0], torch.tensor([(5 * -1 - 1) / 2, 0.0]), atol=1e-3, rtol=1e-3)


def test_without_a_negative_there_is_no_loss() -> None:
    scores = torch.zeros(3, 3, requires_grad=True)
    tau, none = torch.tensor([0.07], requires_grad=True), torch.zeros(3, 3, dtype=torch.bool)
    log_u = log_partition(scores, none, tau)
    assert log_u.isneginf().all()
    loss = global_contrastive_loss(scores, scores.diag(), none, log_u, tau, RHO)
    loss.backward()
    assert loss == 0 and (scores.grad == 0).all() and tau.grad == 0
