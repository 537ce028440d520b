"""Corrections of cosines after training, against hubs: items that are near to far too many queries.

A correction takes a number off an item's cosine that says how near the item is to queries in
general. Those queries are a *bank*, such as the captions of the training split (an inductive
correction), or the test queries themselves (a transductive one, whose figures are of another task
and may not stand beside the others). Every offset here is in units of the cosine:

>>> bank, items = torch.eye(3), torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0]])
>>> nnn_offsets(bank, items, k=2)
tensor([0.5000, 0.7000], dtype=torch.float64)

Embeddings are unit-norm rows of any real dtype. Cosines are made in float64, a tile at a time, so
that memory beyond the arguments is bounded.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from atr_moco_plugin.errors import InputError

_TILE_ELEMENTS = 2**22
"""Cosines in one tile: 32 MiB in float64."""

_TILE_ROWS = 4096
"""Bank rows in one tile, which are converted again for each block of items."""


def bounded_k(k: int, bank: int) -> int:
    """The number of neighbours that a bank of so many rows allows: at most a tenth of it.

    With more, the k nearest queries of an item are no longer near to it.
    """
    return max(1, min(k, bank // 10))


def nnn_offsets(bank: Tensor, items: Tensor, k: int) -> Tensor:
    """Mean cosine of each item with its k nearest rows of a bank.

    Nearest neighbour normalisation (NNN, Chowdhury et al. 2024) ranks the items of a query by
    ``cosine - alpha * offset``. It needs one number an item, so any index can hold it.

    Cross-domain similarity local scaling (CSLS, Conneau et al. 2018) is ``2 cosine - r(query) -
    r(item)``, r this mean with the neighbours of the other kind, 10 in the paper. The query's own
    term changes no ranking: it is NNN with alpha 1/2. The published one has the test queries as the
    bank, and is transductive.

    Args:
        bank: ``[B, d]``, embeddings of the kind of the queries: captions where sound is found.
        items: ``[N, d]``, what is found.
        k: number of neighbours; :func:`bounded_k` gives the largest that is sensible.

    Returns:
        ``[N]`` float64.

    Raises:
        InputError: when the shapes do not fit, an embedding is not finite, or k is not in
            ``[1, B]``.
    """
    return top_means(bank, items, [k])[0]


def top_means(bank: Tensor, items: Tensor, ks: Sequence[int]) -> Tensor:
    """:func:`nnn_offsets` for several k at the cost of one.

    Returns:
        ``[len(ks), N]`` float64.

    Raises:
        InputError: see :func:`nnn_offsets`.
    """
    _check(bank, items)
    wrong = [k for k in ks if not 1 <= k <= len(bank)]
    if wrong:
        raise InputError(
            f"k is {wrong[0]}, but the bank has {len(bank):,} rows: k must be from 1 to that, and "
            "at most a tenth of it for neighbours that are near."
        )
    found = []
    for tiles in _item_blocks(bank, items):
        best: Tensor | None = None
        for tile in tiles:
            tile = tile if best is None else torch.cat([best, tile], dim=1)
            best = tile.topk(min(max(ks), tile.size(1))).values
        assert best is not None, "a bank has rows"
        sums = best.cumsum(dim=1)
        found.append(torch.stack([sums[:, k - 1] / k for k in ks]))
    return torch.cat(found, dim=1)


def inverted_softmax_offsets(bank: Tensor, items: Tensor, beta: float) -> Tensor:
    """Soft maximum of each item's cosines with a bank: ``log(mean_b exp(beta s_b)) / beta``.

    The inverted softmax (Smith et al. 2017) is ``exp(beta s) / sum_b exp(beta s_b)``. Its logarithm
    over beta is the cosine less this offset, up to a number that all items share. It lies between
    the mean (small beta) and the maximum (large beta) over the bank.

    Args:
        bank: ``[B, d]``.
        items: ``[N, d]``.
        beta: inverse temperature, above 0; 20 in QB-Norm.

    Returns:
        ``[N]`` float64.

    Raises:
        InputError: when the shapes do not fit, an embedding is not finite, or beta is not above 0.
    """
    _check(bank, items)
    _check_beta(beta)
    found = []
    for tiles in _item_blocks(bank, items):
        sums = [torch.logsumexp(beta * tile, dim=1) for tile in tiles]
        found.append(torch.stack(sums).logsumexp(dim=0))
    return (torch.cat(found) - math.log(len(bank))) / beta


def first_hits(bank: Tensor, items: Tensor) -> Tensor:
    """Which items are the nearest one of some row of a bank: the hubs of QB-Norm.

    Args:
        bank: ``[B, d]``.
        items: ``[N, d]``.

    Returns:
        ``[N]`` bool. Items that tie for the first place all are.

    Raises:
        InputError: when the shapes do not fit or an embedding is not finite.
    """
    _check(bank, items)
    hit = torch.zeros(len(items), dtype=torch.bool, device=items.device)
    for tile in _row_blocks(bank, items):
        hit |= (tile == tile.amax(dim=1, keepdim=True)).any(dim=0)
    return hit


def qb_norm(scores: Tensor, offsets: Tensor, hubs: Tensor) -> Tensor:
    """Scores less their offsets, where a query's first item is a hub.

    This is QB-Norm (Bogolin et al. 2022), with its dynamic inverted softmax.

    Args:
        scores: ``[n, N]`` cosines.
        offsets: ``[N]`` of :func:`inverted_softmax_offsets`.
        hubs: ``[N]`` bool, of :func:`first_hits`.

    Returns:
        ``[n, N]`` float64. A query whose first item is no hub keeps its cosines.
    """
    first = scores == scores.amax(dim=1, keepdim=True)
    normalised = (first & hubs).any(dim=1, keepdim=True)
    return scores.double() - normalised * offsets


def dual_softmax(scores: Tensor, offsets: Tensor, beta: float) -> Tensor:
    """Cosine times its share of the item's softmax over the test queries (transductive).

    This is the dual softmax of CAMoE (Cheng et al. 2021).

    Args:
        scores: ``[n, N]`` cosines of test queries.
        offsets: ``[N]`` of :func:`inverted_softmax_offsets` with all test queries as the bank.
        beta: the one of the offsets.

    Returns:
        ``[n, N]`` float64: Q times the published product, Q the number of test queries, which
        ranks alike. As published, of two items with a negative cosine the one with the larger
        share comes last.
    """
    scores = scores.double()
    return scores * torch.exp(beta * (scores - offsets))


def sinkhorn_offsets(
    queries: Tensor,
    items: Tensor,
    beta: float,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Offsets that make a transport plan of the cosines of test queries and items (transductive).

    The plan ``P = exp(beta (s - u - v)) / (Q N)`` has rows that sum to 1 / Q and columns that sum
    to 1 / N (Cuturi 2013; m-LTM, Luong et al. 2024, evaluates so with a learned distance): every
    item is found as often as every other. A query ranks items by ``s - v``; with the sides
    exchanged, an item ranks queries by ``s - u``.

    Args:
        queries: ``[Q, d]``, all test queries.
        items: ``[N, d]``.
        beta: inverse of the entropic regularisation, in (0, 300].
        iterations: the most that are made; each costs one matrix of cosines where it is too large
            to keep, else a pass over it.
        tolerance: ends when no sum of a row was further off, as a share of 1 / Q; the sums of the
            columns are right to the last digits. Where it does not end so, it warns.

    Returns:
        ``u`` ``[Q]`` and ``v`` ``[N]``, float64.

    Raises:
        InputError: when the shapes do not fit, an embedding is not finite, or beta is out of range.
    """
    _check(queries, items)
    _check_beta(beta, most=300.0)  # exp(-2 beta) must not vanish in float64
    kernels = _Kernels(queries, items, beta)
    a, b = (torch.ones(len(x), dtype=torch.float64, device=x.device) for x in (queries, items))
    error = math.inf
    for _ in range(iterations):
        rows, columns = [], torch.zeros_like(b)
        for kernel in kernels:
            rows.append((kernel @ b / len(items)).reciprocal())
            columns += rows[-1] @ kernel
        before, a, b = a, torch.cat(rows), (columns / len(queries)).reciprocal()
        error = float((before / a - 1).abs().max())  # of the last plan
        if error <= tolerance:
            break
    else:
        warnings.warn(
            f"Sinkhorn with beta {beta:g} has not converged after {iterations:,} iterations: the "
            f"sum of a query is off by {100 * error:.2g} %, so these are not quite the scores of "
            "the transport plan.",
            stacklevel=2,
        )
    return -a.log() / beta + 1, -b.log() / beta


class _Kernels:
    """Blocks ``[n, N]`` of ``exp(beta (cosine - 1))``, kept where they are few."""

    def __init__(self, queries: Tensor, items: Tensor, beta: float) -> None:
        self._queries, self._items, self._beta = queries, items, beta
        keep = len(queries) * len(items) <= 8 * _TILE_ELEMENTS
        self._kept = list(self._blocks()) if keep else None

    def __iter__(self) -> Iterator[Tensor]:
        return self._blocks() if self._kept is None else iter(self._kept)

    def _blocks(self) -> Iterator[Tensor]:
        for tile in _row_blocks(self._queries, self._items):
            yield tile.sub_(1).mul_(self._beta).exp_()


def _item_blocks(bank: Tensor, items: Tensor) -> Iterator[Iterator[Tensor]]:
    """For each block of items, its cosines ``[n, b]`` with the bank, a tile at a time."""
    rows = max(_TILE_ELEMENTS // min(len(bank), _TILE_ROWS), 1)
    for block in torch.split(items, rows):
        wide = block.double()
        yield (wide @ part.double().T for part in torch.split(bank, _TILE_ROWS))


def _row_blocks(queries: Tensor, items: Tensor) -> Iterator[Tensor]:
    """Cosines ``[n, N]`` of blocks of queries with all items."""
    wide = items.double().T
    for block in torch.split(queries, max(_TILE_ELEMENTS // len(items), 1)):
        yield block.double() @ wide


def _check(bank: Tensor, items: Tensor) -> None:
    for name, x in (("bank", bank), ("items", items)):
        if x.dim() != 2 or x.numel() == 0:
            raise InputError(
                f"The {name} must be a matrix of embeddings with at least one row, got shape "
                f"{list(x.shape)}."
            )
        broken = int((~x.isfinite()).any(dim=1).sum())
        if broken:
            raise InputError(
                f"{broken:,} of {len(x):,} rows of the {name} are not finite; leave them out, or "
                "embed them again."
            )
    if bank.size(1) != items.size(1):
        raise InputError(
            f"The bank has embeddings of {bank.size(1)} numbers and the items of {items.size(1)}; "
            "both must be of the same model."
        )


def _check_beta(beta: float, most: float = math.inf) -> None:
    if not 0 < beta <= most or not math.isfinite(beta):
        limit = "" if most == math.inf else f", at most {most:g}"
        raise InputError(f"beta is {beta}; it must be a finite number above 0{limit}.")
