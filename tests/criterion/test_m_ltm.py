"""Optimal transport over a learned distance against plain formulas in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear import LinearModel, linear_batch
from torch import Tensor
from torch.testing import assert_close

from atr_moco_plugin.criterion import MLtm, MLtmConfig, MLtmFull
from atr_moco_plugin.criterion.transport import (
    learned_distances,
    log_plan,
    metric_rank,
    transport_loss,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.optim import parameter_groups

KINDS: dict[str, type[MLtm]] = {"m_ltm": MLtm, "m_ltm_full": MLtmFull}


def plain_loss(
    a: Tensor, u: Tensor, m: Tensor, positives: Tensor, epsilon: float, iterations: int
) -> Tensor:
    """The loss as it is written, for ``[d, d]`` M, with scaling vectors and no logarithms."""
    n = len(a)
    difference = a[:, None] - u[None]
    d = (torch.einsum("ijk,kl,ijl->ij", difference, m, difference) + 1e-6).sqrt()
    kernel = (-(d / d.max()) / epsilon).exp()
    v, w = (a.new_ones(n) / n for _ in range(2))
    for _ in range(iterations):
        w = (1 / n) / (kernel.T @ v)
        v = (1 / n) / (kernel @ w)
    plan = v[:, None] * kernel * w[None]
    targets = positives.double() / positives.double().sum(dim=1, keepdim=True)
    return -(targets / n * plan.log()).sum()


def unit(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def drawn_metric(kind: type[MLtm], d: int) -> Tensor:
    """A metric as it is trained, far from where it starts."""
    generator = torch.Generator().manual_seed(9)
    start = kind._first_metric(d).double()
    return start + 0.5 * torch.randn(start.shape, generator=generator, dtype=torch.float64)


def matrix_of(kind: type[MLtm], metric: Tensor) -> Tensor:
    return F.softplus(metric).diag() if kind is MLtm else metric.T @ metric


@pytest.mark.parametrize("epsilon, iterations", [(0.03, 50), (0.1, 1), (0.5, 7)])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_loss_and_gradients_are_those_of_the_formula(kind, epsilon, iterations) -> None:
    n, d = 7, 5
    positives = torch.eye(n, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = positives[1, 2] = positives[2, 1] = True
    exact = [unit(n, d, 0), unit(n, d, 1), drawn_metric(kind, d)]
    inputs = [x.float().requires_grad_() for x in exact]
    exact = [x.requires_grad_() for x in exact]

    a, u, metric = inputs
    distances = learned_distances(a, u, kind.distance_factor({"metric": metric}))
    scores = -distances / (distances.max() * epsilon)
    loss = transport_loss(log_plan(scores, iterations), positives)
    matrix = matrix_of(kind, exact[2])
    expected = plain_loss(*exact[:2], matrix, positives, epsilon, iterations)

    loss.backward()
    expected.backward()
    assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(inputs, exact, strict=True):
        scale = wanted.grad.abs().max().item()
        assert_close(found.grad.double(), wanted.grad, atol=2e-4 * scale, rtol=1e-3)


def test_a_plan_has_the_marginals_it_should() -> None:
    scores = -10 * torch.rand(5, 9, generator=torch.Generator().manual_seed(0)).double()
    plan = log_plan(scores, 200).exp()
    assert_close(plan.sum(dim=1), torch.full((5,), 1 / 5).double())
    assert_close(plan.sum(dim=0), torch.full((9,), 1 / 9).double())
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_plan(x, 4), (scores,))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_criterion_spreads_targets_over_positives_by_ids(kind) -> None:
    batch = linear_batch()
    losses = {}
    for mode in ("pair", "clip", "clip_or_caption"):
        criterion = kind(LinearModel(), MLtmConfig(positives=mode))
        batch["clip_ids"] = torch.tensor([0, 0, 1, 2])
        batch["caption_ids"] = torch.tensor([5, 6, 7, 7])
        measures = criterion(**batch)
        losses[mode] = measures["loss"]
        with torch.no_grad():
            a, u = (
                criterion.model.audio(**batch["audio"])[0],
                criterion.model.text(**batch["text"])[0],
            )
        positives = torch.eye(4, dtype=torch.bool)
        if mode != "pair":
            positives[0, 1] = positives[1, 0] = True
        if mode == "clip_or_caption":
            positives[2, 3] = positives[3, 2] = True
        exact = plain_loss(a.double(), u.double(), torch.eye(4).double(), positives, 0.03, 50)
        assert_close(losses[mode].double(), exact, atol=1e-5, rtol=1e-5)
        assert set(measures) == set(kind.measures)
        assert_close(measures["metric_rank"], torch.tensor(4.0))
    assert len({round(x.item(), 4) for x in losses.values()}) == 3


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_trained_saved_and_reset(kind) -> None:
    criterion = kind(LinearModel(), MLtmConfig())
    start = copy.deepcopy(criterion.state_dict())
    # The temperature stands still, and the metric does not decay.
    names = dict(criterion.named_parameters())
    assert "temperature" not in names and "temperature" in start and "metric" in start
    decayed, plain = parameter_groups(criterion, 0.1, lr=1.0)
    assert any(x is criterion.metric for x in plain["params"])
    assert not any(x is criterion.metric for x in decayed["params"])

    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion.attach(optimizer)
    for seed in range(3):
        optimizer.zero_grad()
        criterion(**linear_batch(seed))["loss"].backward()
        optimizer.step()
    assert not torch.equal(criterion.metric, start["metric"])
    assert torch.equal(criterion.temperature, start["temperature"])
    again = kind(LinearModel(), MLtmConfig())
    again.load_state_dict(criterion.state_dict())
    batch = linear_batch(7)
    assert torch.equal(again(**batch)["loss"], criterion(**batch)["loss"])
    again.reset_parameters()
    assert torch.equal(again.metric, start["metric"])
    # An option is that of this run, whatever the saved one had.
    other = kind(LinearModel(), MLtmConfig(temperature=0.1))
    other.load_state_dict(criterion.state_dict())
    assert other.temperature.item() == pytest.approx(0.1)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_is_float32_whatever_the_model_is(kind) -> None:
    criterion = kind(LinearModel(), MLtmConfig())
    batch = linear_batch()
    expected = criterion(**batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(**batch)["loss"]
    assert found.dtype == torch.float32
    assert_close(found, expected, atol=0.3, rtol=0.2)  # the towers are not
    criterion.bfloat16()
    assert criterion.metric.dtype == criterion.temperature.dtype == torch.float32
    assert criterion(**batch)["loss"].dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_metric_learns_which_dimensions_matter(kind) -> None:
    """Clips and captions agree in two of six dimensions, and are noise in the others."""
    generator = torch.Generator().manual_seed(0)
    metric = torch.nn.Parameter(kind._first_metric(6))
    optimizer = torch.optim.Adam([metric], lr=0.05)
    for _ in range(100):
        x = torch.randn(2, 16, 6, generator=generator)
        x[1, :, :2] = x[0, :, :2]
        a, u = F.normalize(x, dim=2)
        distances = learned_distances(a, u, kind.distance_factor({"metric": metric}))
        scores = -distances / (distances.max() * 0.03)
        optimizer.zero_grad()
        transport_loss(log_plan(scores, 20), torch.eye(16, dtype=torch.bool)).backward()
        optimizer.step()
    factor = kind.distance_factor({"metric": metric.detach()})
    weights = factor.square() if factor.dim() == 1 else (factor.T @ factor).diagonal()
    assert weights[:2].min() > 2 * weights[2:].max()
    assert metric_rank(factor) < 4


def test_a_batch_of_one_and_of_equal_items_is_finite() -> None:
    for rows in ([0], [0, 0, 0]):
        a = unit(1, 4, 0).float()[rows].requires_grad_()
        distances = learned_distances(a, a, torch.ones(4))
        plan = log_plan(-distances / (distances.max() * 0.03), 5)
        loss = transport_loss(plan, torch.eye(len(rows), dtype=torch.bool))
        loss.backward()
        assert_close(loss, torch.tensor(2 * math.log(len(rows))))
        assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("options", [{"sinkhorn_iterations": 0}, {"temperature": 0.0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        MLtmConfig(**options)
