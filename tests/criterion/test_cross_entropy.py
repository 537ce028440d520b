"""The loss that reads its columns in blocks, against the plain one that puts them together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.criterion import atc_targets, cross_entropy
from atr_moco_plugin.criterion.cross_entropy import Columns, soft_target_cross_entropy


def plain(
    query: Tensor,
    query_m: Tensor,
    columns: list[Columns],
    positives: Tensor,
    temperature: Tensor,
    alpha: float,
    ignore: Tensor | None,
) -> Tensor:
    online, momentum = (torch.cat(every) for every in zip(*columns, strict=True))
    logits, soft = query @ online.T / temperature, query_m @ momentum.T / temperature.detach()
    if ignore is not None:
        logits = logits.masked_fill(ignore, torch.finfo(logits.dtype).min)
        soft = soft.masked_fill(ignore, float("-inf"))
        positives = positives & ~ignore
    targets = alpha * soft.softmax(dim=1) + (1 - alpha) * atc_targets(positives)
    return F.cross_entropy(logits, targets)


def make(b: int, k: int, d: int, seed: int, with_ignored: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    rows = (F.normalize(torch.randn(n, d, generator=generator), dim=-1) for n in (b, b, b, b, k))
    own = torch.eye(b, b + k, dtype=torch.bool)
    positives = (torch.rand(b, b + k, generator=generator) < 0.2) | own
    ignore = (torch.rand(b, b + k, generator=generator) < 0.3) & ~own if with_ignored else None
    return *rows, positives, ignore


def compare(b, k, d, seed, alpha, tau, with_ignored, precision=2e-5, online=False) -> None:
    query, query_m, batch, batch_m, queue, positives, ignore = make(b, k, d, seed, with_ignored)
    found = []
    for loss, dtype in ((soft_target_cross_entropy, torch.float32), (plain, torch.float64)):
        q, c = (x.clone().to(dtype).requires_grad_() for x in (query, batch))
        temperature = torch.tensor([tau], dtype=dtype, requires_grad=True)
        momentum, rows = batch_m.to(dtype), queue.to(dtype)
        columns = [Columns(c if online else momentum, momentum), Columns(rows, rows)]
        value = loss(q, query_m.to(dtype), columns, positives, temperature, alpha, ignore)
        (3 * value).backward()
        # All in units of the logits, which are similarities over tau.
        gradients = [tau * x.grad.float() for x in (q, temperature, *[c] * online)]
        found.append([value.detach().float(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=precision, rtol=precision)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 9),
    k=st.integers(0, 40),
    seed=st.integers(0, 1_000),
    alpha=st.sampled_from([0.0, 0.4, 1.0]),
    with_ignored=st.booleans(),
    online=st.booleans(),
    elements=st.sampled_from([1, 20, 1 << 18]),
    kept=st.sampled_from([1, 150, 1 << 26]),
)
def test_blocks_of_any_size_equal_the_plain_form_in_float64(
    b, k, seed, alpha, with_ignored, online, elements, kept
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "_CPU_ELEMENTS", elements)
        patch.setattr(cross_entropy, "_KEPT_ELEMENTS", kept)
        compare(b, k, 6, seed, alpha, 0.1, with_ignored, online=online)


@pytest.mark.parametrize("tau", [0.001, 0.01, 0.5])
def test_every_temperature_of_the_range(tau: float) -> None:
    # At tau = 0.001 logits reach 1,000, of which float32 keeps four decimals.
    compare(16, 500, 32, 0, 0.4, tau, False, precision=2e-5 if tau > 0.001 else 1e-3)


def test_a_queue_of_the_usual_size() -> None:
    compare(8, 70_000, 16, 0, 0.4, 0.07, True, online=True)


@pytest.mark.parametrize("online", [False, True])
def test_what_autograd_keeps_does_not_grow_with_the_queue(online: bool) -> None:
    def kept(k: int) -> int:
        query, query_m, batch, batch_m, queue, positives, _ = make(8, k, 16, 0, False)
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        columns = [Columns(batch.requires_grad_(online), batch_m), Columns(queue, queue)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            soft_target_cross_entropy(
                query.requires_grad_(), query_m, columns, positives,
                torch.tensor([0.07], requires_grad=True), 0.4,
            )  # fmt: skip
        return sum(sizes)

    assert 0 < kept(10) == kept(5_000)
