"""The best rows are those of a comparison with every row, one by one, at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import unit

from atr_moco_plugin.search.local import products
from atr_moco_plugin.search.local.products import all_cosines, best_of_each, best_rows


def plainly(
    matrix: np.ndarray,
    query: np.ndarray,
    k: int,
    live: np.ndarray | None = None,
    less: np.ndarray | None = None,
) -> list[int]:
    """Cosines one by one in float32, less what is taken off; ties by row."""
    scores = [
        np.float32(np.dot(row.astype(np.float64), query.astype(np.float64))) for row in matrix
    ]
    if less is not None:
        scores = [score - off for score, off in zip(scores, less, strict=True)]
    rows = [n for n in range(len(matrix)) if live is None or live[n]]
    return sorted(rows, key=lambda n: (-scores[n], n))[:k]


@given(
    rows=st.sampled_from([0, 1, 2, 255, 256, 257, 511, 512, 700, 1100]),
    width=st.sampled_from([1, 3, 16]),
    kinds=st.sampled_from([1, 2, 5, 10_000]),
    k=st.sampled_from([1, 2, 3, 10, 300, 5000]),
    share=st.sampled_from([None, 0.0, 0.01, 0.5, 0.99]),
    alpha=st.sampled_from([None, 0.1, 4.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_the_best_rows_are_those_of_a_loop(
    rows: int, width: int, kinds: int, k: int, share: float | None, alpha: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    # Few kinds of rows make many ties.
    table = unit(random.normal(size=(kinds, width))).astype(np.float16)
    matrix = table[random.integers(kinds, size=rows)]
    query = unit(random.normal(size=(1, width)))[0]
    live = None if share is None else random.random(rows) < share
    less = None
    if alpha is not None:
        less = np.float32(alpha) * random.uniform(-1, 1, kinds).astype(np.float32)
        less = less[random.integers(kinds, size=rows)]
    found, scores = best_rows(matrix, query, k, live, less)
    assert found.tolist() == plainly(matrix, query, k, live, less)
    expected = matrix[found].astype(np.float32) @ query - (0 if less is None else less[found])
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_close_rows_are_told_apart() -> None:
    """Embeddings of sounds often lie close together: here all cosines are within 2e-3."""
    random = np.random.default_rng(0)
    matrix = unit(1 + 0.02 * random.normal(size=(5000, 64))).astype(np.float16)
    query = unit(1 + 0.02 * random.normal(size=(1, 64)))[0]
    assert best_rows(matrix, query, 20)[0].tolist() == plainly(matrix, query, 20)


def test_a_product_less_exact_than_thought_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_ROUNDING", -1e-3)  # as if torch had promised too much
    random = np.random.default_rng(0)
    matrix = unit(random.normal(size=(5000, 64))).astype(np.float16)
    query = unit(random.normal(size=(1, 64)))[0]
    assert best_rows(matrix, query, 20)[0].tolist() == plainly(matrix, query, 20)
    less = random.uniform(0, 0.5, 5000).astype(np.float32)
    found = best_rows(matrix, query, 20, less=less)[0].tolist()
    assert found == plainly(matrix, query, 20, less=less)


@pytest.mark.parametrize("live", [None, np.arange(700) < 650, np.arange(700) < 5])
def test_what_is_no_number_is_told(live: np.ndarray | None) -> None:
    matrix = unit(np.random.default_rng(0).normal(size=(700, 8))).astype(np.float16)
    matrix[3, 2] = np.nan
    with pytest.raises(FloatingPointError):
        best_rows(matrix, matrix[0].astype(np.float32), 3, live)


@pytest.mark.parametrize("width", [1, 100, 40_000])
def test_all_cosines(width: int) -> None:
    random = np.random.default_rng(0)
    matrix = unit(random.normal(size=(1001, width) if width < 1000 else (7, width)))
    half, queries = matrix.astype(np.float16), unit(random.normal(size=(3, width)))
    expected = queries @ half.astype(np.float32).T
    np.testing.assert_allclose(all_cosines(half, queries), expected, atol=1e-6)
    some = np.array([5, 2])
    np.testing.assert_allclose(all_cosines(half, queries, some), expected[:, some], atol=1e-6)
    assert all_cosines(half, queries, some[:0]).shape == (3, 0)


@given(counts=st.lists(st.integers(1, 5), max_size=20), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_best_of_each_stretch(counts: list[int], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, size=sum(counts)).astype(np.float32)
    best, places = best_of_each(scores, np.array(counts, np.int64))
    ends = np.cumsum(counts).tolist()
    parts = [scores[end - count : end].tolist() for end, count in zip(ends, counts, strict=True)]
    assert best.tolist() == [max(part) for part in parts]
    assert places.tolist() == [part.index(max(part)) for part in parts]
