"""Cross-entropy against momentum soft targets over columns that are never concatenated.

The columns, the batch's and the queue's, are read where they lie, a block at a time, and the
gradient is found in the same pass: all that autograd keeps is one ``[B, d]`` matrix, and one like
the columns that have a gradient, where the plain form keeps and makes several ``[B, M]`` ones.
``tests/criterion/test_cross_entropy.py`` holds it to that form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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


class Columns(NamedTuple):
    """Columns of the loss in one tensor.

    Attributes:
        online: ``[M, d]``, which the logits are of. A gradient flows to it where it asks for one.
        momentum: ``[M, d]``, which the soft targets are of, without a gradient; it may be
            ``online``.
    """

    online: Tensor
    momentum: Tensor


def soft_target_cross_entropy(
    query: Tensor,
    query_m: Tensor,
    columns: Sequence[Columns],
    positives: Tensor,
    temperature: Tensor,
    alpha: float,
    ignore: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy between ``softmax(q . c / tau)`` and ``alpha softmax(q_m . c_m / tau) + (1
    - alpha) y`` over the columns ``c``, where ``y`` spreads over the positives of a row.

    Args:
        query: ``[B, d]``.
        query_m: ``[B, d]``, the momentum embeddings of the same items, without a gradient.
        columns: the M columns in parts of any length. What is no online column, such as a row of
            a queue, is the same in both tensors of its part.
        positives: ``[B, M]`` bool, at least one ``True`` a row.
        temperature: scalar (or one-element) tensor, tau.
        alpha: weight of the soft targets.
        ignore: ``[B, M]`` bool, columns that take no part in a row.

    Returns:
        Scalar float32.
    """
    parts = [part for part in columns if len(part.online)]
    loss: Tensor = _SoftTargetCrossEntropy.apply(
        query.float(),
        temperature.float(),
        query_m.detach().float(),
        [None if c is c_m else c_m.detach().float() for c, c_m in parts],
        positives if ignore is None else positives & ~ignore,
        alpha,
        ignore,
        *(part.online.float() for part in parts),
    )
    return loss


class _SoftTargetCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        temperature: Tensor,
        query_m: Tensor,
        momentum: list[Tensor | None],
        positives: Tensor,
        alpha: float,
        ignore: Tensor | None,
        *online: Tensor,
    ) -> Tensor:
        b, m = positives.shape
        losses, grad_query = query.new_empty(b), torch.empty_like(query)
        # Of the columns alone that ask for one: the queue may be much larger than the batch.
        needed = ctx.needs_input_grad[-len(online) :]
        grads = [
            torch.zeros_like(x) if wanted else None
            for x, wanted in zip(online, needed, strict=True)
        ]
        columns = list(zip(online, momentum, grads, strict=True))
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
        # With s = q . c / tau, the gradient g of s reaches q as g . c / tau, c as g . q / tau, and
        # tau as -g . s / tau, which is -q . (gradient of q) / tau.
        grad_query /= temperature * b
        grads = [None if grad is None else grad.div_(b) for grad in grads]
        ctx.save_for_backward(grad_query, -(query * grad_query).sum() / temperature, *grads)
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_query, grad_temperature, *grads = ctx.saved_tensors
        return (
            grad * grad_query,
            grad * grad_temperature,
            *[None] * 5,
            *(None if x is None else grad * x for x in grads),
        )


_Part = tuple[Tensor, Tensor | None, Tensor | None]
"""Columns; those of the soft targets where they are others; the gradient where one is wanted."""


def _loss_and_gradient(
    query: Tensor,
    query_m: Tensor,
    columns: list[_Part],
    positives: Tensor,
    alpha: float,
    ignore: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Loss ``[b]`` of each row, and the gradient ``[b, d]`` of their sum at ``query``. Its gradient
    at the columns is added to theirs."""
    b, m = positives.shape
    both = torch.cat([query, query_m]) if alpha > 0 else query
    logits = query.new_empty(len(both), m)
    blocks, norms = list(_blocks(columns, len(both))), []
    count = positives.new_zeros(b, 1, dtype=torch.int64)
    for block, part, part_m, _ in blocks:
        if part_m is None or alpha == 0:
            torch.mm(both, part.T, out=logits[:, block])
        else:
            torch.mm(query, part.T, out=logits[:b, block])
            torch.mm(query_m, part_m.T, out=logits[b:, block])
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
    for block, part, _, grad in blocks:
        targets = torch.where(positives[:, block], share, 0.0)
        if alpha > 0:
            targets.add_(momentum[:, block].sub_(norm[b:]).exp_(), alpha=alpha)
        own = online[:, block]
        loss -= torch.linalg.vecdot(targets, own)
        difference = own.sub_(norm[:b]).exp_().sub_(targets)
        gradient.addmm_(difference, part)
        if grad is not None:
            grad.addmm_(difference.T, query)
    return loss, gradient


def _blocks(
    columns: list[_Part], rows: int
) -> Iterator[tuple[slice, Tensor, Tensor | None, Tensor | None]]:
    """Where a block of columns is among them all, and its rows of every tensor."""
    elements = _CPU_ELEMENTS if columns[0][0].device.type == "cpu" else _GPU_ELEMENTS
    width, start = max(1, elements // rows), 0
    for part in columns:
        for first in range(0, len(part[0]), width):
            online, momentum, grad = (None if x is None else x[first : first + width] for x in part)
            assert online is not None
            yield slice(start, start + len(online)), online, momentum, grad
            start += len(online)
