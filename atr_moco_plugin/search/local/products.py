"""Cosines of queries with a mapped float16 matrix, and what is left of them when it is corrected.

Shapes: N rows, d their size, Q queries. All vectors are unit-norm.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

# Numbers of a block: it stays in a near cache, and torch converts as many without waking other
# threads, which costs more than it gains when they are busy.
_BLOCK = 32768
_GROUP = 256
# Float16 has 11 bits, so that a cosine is off by half of 2 ** -11 at most; sums are in float32.
_ROUNDING = 2.0**-12 + 1e-5
_TIE = 1e-6


def best_rows(
    matrix: NDArray[np.float16],
    query: NDArray[np.float32],
    k: int,
    live: NDArray[np.bool_] | None = None,
    less: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows with the highest score, exactly: the cosine, or what is left of it.

    A product in float16 finds every row that may be among them; those are compared again in
    float32.

    Args:
        matrix: ``[N, d]``.
        query: ``[d]``.
        k: how many, at most.
        live: ``[N]``, the rows to look at; all where it is None.
        less: ``[N]``, what is taken off the cosine of each; nothing where it is None.

    Returns:
        rows and scores, best first; of the same score, the lower row first.

    Raises:
        FloatingPointError: where the matrix holds what is no number.
    """
    if live is not None and live.sum() * 8 < len(live):
        rows = np.flatnonzero(live)
        scores = exact_scores(matrix, rows, query, less)
    else:
        rough, error = _rough_cosines(matrix, query)
        rows = _candidates(rough, error, k, live, less)
        scores = exact_scores(matrix, rows, query, less)
        if (np.abs(scores - _left(rough[rows], rows, less)) > error).any():
            # A build of torch that sums in float16.
            rough = all_cosines(matrix, query[None])[0]
            rows = _candidates(rough, _TIE, k, live, less)
            scores = exact_scores(matrix, rows, query, less)
    if not np.isfinite(scores).all():
        raise FloatingPointError("a cosine is no number")
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def _rough_cosines(
    matrix: NDArray[np.float16], query: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """``[N]`` cosines by a product in float16, and how far off one is at most."""
    rounded = query.astype(np.float16)
    halves = torch.mv(torch.from_numpy(matrix), torch.from_numpy(rounded))
    rough = torch.empty(len(halves))
    for start in range(0, len(halves), _BLOCK):
        rough[start : start + _BLOCK] = halves[start : start + _BLOCK]
    # The rows have length 1, so that this bounds what rounding the query does.
    return rough.numpy(), float(np.linalg.norm(query - rounded.astype(np.float32))) + _ROUNDING


def _candidates(
    rough: NDArray[np.float32],
    error: float,
    k: int,
    live: NDArray[np.bool_] | None,
    less: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """Rows among which the best k are, ascending, given cosines that are off by ``error``."""
    if less is not None:
        rough = rough - less
    if live is not None:
        rough = np.where(live, rough, -np.inf)
    # The k-th best of the groups' maxima is no more than the k-th best score.
    whole = len(rough) - len(rough) % _GROUP
    tops = np.append(rough[:whole].reshape(-1, _GROUP).max(axis=1), rough[whole:])
    if np.isnan(tops).any():
        raise FloatingPointError("a cosine is no number")
    if k >= len(tops):
        return np.flatnonzero(rough > -np.inf)
    least = max(np.partition(tops, -k)[-k] - 2 * error, np.finfo(np.float32).min)
    return np.flatnonzero(rough >= least)


def exact_scores(
    matrix: NDArray[np.float16],
    rows: NDArray[np.int64],
    query: NDArray[np.float32],
    less: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """``[n]`` scores of some rows: their cosines, less what is taken off."""
    return _left(exact_cosines(matrix, rows, query), rows, less)


def _left(
    cosines: NDArray[np.float32], rows: NDArray[np.int64], less: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    return cosines if less is None else cosines - less[rows]


def exact_cosines(
    matrix: NDArray[np.float16], rows: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``[n]`` cosines of some rows. Equal rows have equal ones, wherever they stand."""
    wide = query.astype(np.float64)
    step = max(1, _BLOCK // len(query))
    parts = [
        (matrix[rows[start : start + step]].astype(np.float64) * wide).sum(axis=1)
        for start in range(0, len(rows), step)
    ]
    scores: NDArray[np.float64] = np.concatenate(parts or [np.empty(0)])
    return scores.astype(np.float32)


def all_cosines(
    matrix: NDArray[np.float16],
    queries: NDArray[np.float32],
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """``[Q, n]`` cosines with some rows, or with all of them."""
    count = len(matrix) if rows is None else len(rows)
    out = np.empty((len(queries), count), np.float32)
    step = max(1, _BLOCK // matrix.shape[1])
    buffer = torch.empty(step, matrix.shape[1])
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        chosen = torch.from_numpy(matrix[part if rows is None else rows[part]])
        block = buffer[: len(chosen)].copy_(chosen).numpy()
        for q, query in enumerate(queries):
            np.dot(block, query, out=out[q, part])
    return out


def best_of_each(
    scores: NDArray[np.float32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best of each of R stretches, one after the other.

    Args:
        scores: ``[n]``.
        counts: ``[R]`` scores of each stretch, 1 or more, n together.

    Returns:
        ``[R]`` best scores, and ``[R]`` how far into its stretch each is: the first that is no
        worse but for rounding.
    """
    if not len(counts):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    starts = np.cumsum(counts) - counts
    best = np.maximum.reduceat(scores, starts)
    good = np.flatnonzero(scores >= np.repeat(best, counts) - _TIE)
    return best, good[np.searchsorted(good, starts)] - starts
