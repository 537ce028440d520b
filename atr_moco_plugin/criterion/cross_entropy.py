"""Cross-entropy against momentum soft targets over columns that are never concatenated.

The columns, the batch's and the queue's, are read where they lie, a block at a time, and the
gradient is found in the same pass: all that autograd keeps is one ``[B, d]`` matrix, where the
plain form keeps and makes several ``[B, M]`` ones. ``tests/criterion/test_cross_entropy.py``
holds it to that form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atr_moco_plugin.tensors.float32 import full_products

# Elements of a block. A CPU's caches should hold a few of them; a GPU would wait for the launch of
# many small operations, so there it is what memory allows.
_CPU_ELEMENTS = 1 << 18
_GPU_ELEMENTS = 1 << 26
# Elements of the two [rows, M] matrices of logits that are there at once.
_KEPT_ELEMENTS = 1 << 26


def soft_target_cross_entropy(
    query: Tensor,
    query_m: Tensor,
    columns: Sequence[Tensor],
    positives: Tensor,
    temperature: Tensor,
    alpha: float,
    ignore: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy between ``softmax(q . c / tau)`` and ``alpha softmax(q_m . c / tau) + (1 -
    alpha) y`` over the columns ``c``, where ``y`` spreads over the positives of a row.

    Args:
        query: ``[B, d]``.
        query_m: ``[B, d]``, the momentum embeddings of the same items, without a gradient.
        columns: tensors ``[M_i, d]`` whose rows together are the M columns, without a gradient.
        positives: ``[B, M]`` bool, at least one ``True`` a row.
        temperature: scalar (or one-element) tensor, tau.
        alpha: weight of the soft targets.
        ignore: ``[B, M]`` bool, columns that take no part in a row.

    Returns:
        Scalar float32.
    """
    loss: Tensor = _SoftTargetCrossEntropy.apply(
        query.float(),
        temperature.float(),
        query_m.detach().float(),
        [x.detach().float() for x in columns if len(x)],
        positives if ignore is None else positives & ~ignore,
        alpha,
        ignore,
    )
    return loss


class _SoftTargetCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        temperature: Tensor,
        query_m: Tensor,
        columns: list[Tensor],
        positives: Tensor,
        alpha: float,
        ignore: Tensor | None,
    ) -> Tensor:
        b, m = positives.shape
        losses, grad_query = query.new_empty(b), torch.empty_like(query)
        rows = max(1, _KEPT_ELEMENTS // (2 * m))
        for start in range(0, b, rows):
            own = slice(start, start + rows)
            with full_products():
                losses[own], grad_query[own] = _loss_and_gradient(
                    query[own] / temperature,
                    query_m[own] / temperature,
                    columns,
                    positives[own],
                    alpha,
                    None if ignore is None else ignore[own],
                )
        # With s = q . c / tau, the gradient g of s reaches q as g . c / tau and tau as
        # -g . s / tau, which is -q . (gradient of q) / tau.
        grad_query /= temperature * b
        ctx.save_for_backward(grad_query, -(query * grad_query).sum() / temperature)
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_query, grad_temperature = ctx.saved_tensors
        return grad * grad_query, grad * grad_temperature, None, None, None, None, None


def _loss_and_gradient(
    query: Tensor,
    query_m: Tensor,
    columns: list[Tensor],
    positives: Tensor,
    alpha: float,
    ignore: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Loss ``[b]`` of each row, and the gradient ``[b, d]`` of their sum at ``query``."""
    b, m = positives.shape
    both = torch.cat([query, query_m]) if alpha > 0 else query
    logits = query.new_empty(len(both), m)
    blocks, norms = list(_blocks(columns, len(both))), []
    count = positives.new_zeros(b, 1, dtype=torch.int64)
    for block, part in blocks:
        torch.mm(both, part.T, out=logits[:, block])
        if ignore is not None:
            # The lowest finite value and not -inf: 0 * -inf would make the loss NaN.
            logits[:b, block].masked_fill_(ignore[:, block], torch.finfo(logits.dtype).min)
            logits[b:, block].masked_fill_(ignore[: len(both) - b, block], float("-inf"))
        # Of the block while the caches hold it.
        norms.append(logits[:, block].logsumexp(dim=1, keepdim=True))
        count += positives[:, block].sum(dim=1, keepdim=True)
    online, momentum = logits[:b], logits[b:]
    norm = torch.cat(norms, dim=1).logsumexp(dim=1, keepdim=True)
    share = (1 - alpha) / count

    loss, gradient = norm[:b, 0].clone(), torch.zeros_like(query)
    for block, part in blocks:
        targets = torch.where(positives[:, block], share, 0.0)
        if alpha > 0:
            targets.add_(momentum[:, block].sub_(norm[b:]).exp_(), alpha=alpha)
        own = online[:, block]
        loss -= torch.linalg.vecdot(targets, own)
        gradient.addmm_(own.sub_(norm[:b]).exp_().sub_(targets), part)
    return loss, gradient


def _blocks(columns: list[Tensor], rows: int) -> Iterator[tuple[slice, Tensor]]:
    """Where a block of columns is among them all, and its rows."""
    elements = _CPU_ELEMENTS if columns[0].device.type == "cpu" else _GPU_ELEMENTS
    width, start = max(1, elements // rows), 0
    for x in columns:
        for part in x.split(width):
            yield slice(start, start + len(part)), part
            start += len(part)
