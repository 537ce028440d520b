"""Corrections beside slow float64 formulas, as they are published."""

from __future__ import annotations

import re
import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.evaluation import corrections
from atr_moco_plugin.evaluation.corrections import (
    bounded_k,
    dual_softmax,
    first_hits,
    inverted_softmax_offsets,
    nnn_offsets,
    qb_norm,
    sinkhorn_offsets,
    top_means,
)


def _unit(rows: int, seed: int, width: int = 8) -> Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def _cosines(a: Tensor, b: Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(a.double().numpy() @ b.double().numpy().T)


BANK, ITEMS, QUERIES = _unit(53, 0), _unit(29, 1), _unit(17, 2)


@pytest.fixture(params=[2**22, 64], ids=["one tile", "many tiles"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "_TILE_ELEMENTS", request.param)
    monkeypatch.setattr(corrections, "_TILE_ROWS", 4096 if request.param > 64 else 7)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("k", [1, 2, 7, 8, 53])
def test_nnn_is_the_mean_of_the_nearest(k: int) -> None:
    expected = np.sort(_cosines(BANK, ITEMS), axis=0)[-k:].mean(axis=0)
    np.testing.assert_allclose(nnn_offsets(BANK, ITEMS, k), expected, atol=1e-14)
    several = top_means(BANK, ITEMS, [k, 5])
    assert several.shape == (2, 29) and several.dtype == torch.float64
    assert torch.equal(several[0], nnn_offsets(BANK, ITEMS, k))


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("beta", [0.5, 20.0, 500.0])
def test_inverted_softmax_ranks_as_published(beta: float) -> None:
    s, bank = _cosines(QUERIES, ITEMS), _cosines(BANK, ITEMS)
    published = beta * s - np.log(np.sum(np.exp(beta * (bank - 1)), axis=0)) - beta
    ours = s - inverted_softmax_offsets(BANK, ITEMS, beta).numpy()
    np.testing.assert_allclose(ours - published / beta, np.log(53) / beta, atol=1e-12)


@given(st.floats(0.01, 1000), st.integers(1, 40), st.integers(1, 12), st.integers(0, 9))
def test_inverted_softmax_lies_between_mean_and_maximum(
    beta: float, bank: int, items: int, seed: int
) -> None:
    x, y = _unit(bank, seed), _unit(items, seed + 1)
    offsets = inverted_softmax_offsets(x, y, beta)
    assert (offsets >= nnn_offsets(x, y, bank) - 1e-9).all()
    assert (offsets <= nnn_offsets(x, y, 1) + 1e-9).all()


@pytest.mark.usefixtures("tile")
def test_csls_ranks_as_published() -> None:
    s, k = _cosines(QUERIES, ITEMS), 5
    r_query = np.sort(s, axis=1)[:, -k:].mean(axis=1)
    r_item = np.sort(_cosines(BANK, ITEMS), axis=0)[-k:].mean(axis=0)
    published = 2 * s - r_query[:, None] - r_item
    ours = s - nnn_offsets(BANK, ITEMS, k).numpy() / 2
    assert (np.argsort(ours, axis=1) == np.argsort(published, axis=1)).all()


@pytest.mark.usefixtures("tile")
def test_qb_norm_normalises_the_queries_whose_first_hit_is_a_hub() -> None:
    bank, beta = BANK[:9], 20.0
    s, b = _cosines(QUERIES, ITEMS), _cosines(bank, ITEMS)
    hubs = set(b.argmax(axis=1))
    expected = s.copy()
    for row in range(len(s)):
        if s[row].argmax() in hubs:
            expected[row] = s[row] - np.log(np.mean(np.exp(beta * b), axis=0)) / beta
    assert 0 < (expected != s).any(axis=1).sum() < len(s)  # some of both kinds
    assert set(first_hits(bank, ITEMS).nonzero().flatten().tolist()) == hubs
    offsets = inverted_softmax_offsets(bank, ITEMS, beta)
    ours = qb_norm(torch.from_numpy(s), offsets, first_hits(bank, ITEMS))
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_items_that_tie_for_the_first_place_are_hubs_alike() -> None:
    items = torch.eye(3)[[0, 0, 1]]
    assert first_hits(torch.eye(3)[:1], items).tolist() == [True, True, False]


def test_dual_softmax_is_the_published_product() -> None:
    beta, s = 30.0, _cosines(QUERIES, ITEMS)
    share = np.exp(beta * s) / np.exp(beta * s).sum(axis=0)
    ours = dual_softmax(torch.from_numpy(s), inverted_softmax_offsets(QUERIES, ITEMS, beta), beta)
    np.testing.assert_allclose(ours, s * share * len(s), rtol=1e-10)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("beta", [1.0, 33.0])
def test_sinkhorn_has_uniform_sums_and_the_form_of_a_plan(beta: float) -> None:
    u, v = sinkhorn_offsets(QUERIES, ITEMS, beta, iterations=5000, tolerance=1e-13)
    s = _cosines(QUERIES, ITEMS)
    plan = np.exp(beta * (s - u.numpy()[:, None] - v.numpy())) / s.size
    np.testing.assert_allclose(plan.sum(axis=1), 1 / len(s), rtol=1e-8)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / s.shape[1], rtol=1e-8)


def test_sinkhorn_equals_alternating_normalisation() -> None:
    beta = 10.0
    plan = np.exp(beta * _cosines(QUERIES, ITEMS))
    for _ in range(3):
        plan /= plan.sum(axis=1, keepdims=True) * plan.shape[0]
        plan /= plan.sum(axis=0, keepdims=True) * plan.shape[1]
    with pytest.warns(UserWarning, match="after 3 iterations"):
        u, v = sinkhorn_offsets(QUERIES, ITEMS, beta, iterations=3, tolerance=0.0)
    ours = np.exp(beta * (_cosines(QUERIES, ITEMS) - u.numpy()[:, None] - v.numpy())) / plan.size
    np.testing.assert_allclose(ours, plan, rtol=1e-10)


def test_sinkhorn_goes_on_until_its_sums_are_right_or_says_that_they_are_not() -> None:
    """It ended after 200 iterations without a word, wherever it was."""
    items = torch.nn.functional.normalize(_unit(60, 6, width=24) + _unit(1, 7, width=24), dim=1)
    queries = torch.nn.functional.normalize(items + 0.5 * _unit(60, 8, width=24), dim=1)

    def furthest(beta: float, **options: int) -> float:
        """Of the sum of a row from what it should be, as a share."""
        u, v = sinkhorn_offsets(queries, items, beta, **options)
        s = _cosines(queries, items)
        plan = np.exp(beta * (s - u.numpy()[:, None] - v.numpy())) / s.size
        np.testing.assert_allclose(plan.sum(axis=0), 1 / s.shape[1], rtol=1e-9)
        return float(np.abs(plan.sum(axis=1) * len(s) - 1).max())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert furthest(40.0) <= 1e-3
    with pytest.warns(UserWarning) as told:
        error = furthest(40.0, iterations=200)
    (share,) = re.findall(r"beta 40 .* 200 iterations: .* off by (\S+) %", str(told[0].message))
    assert error > 1e-3 and float(share) == pytest.approx(100 * error, rel=0.05)


def test_a_hub_is_held_back() -> None:
    """All captions share a direction, and one clip lies in it: nearer than most own clips."""
    middle = 2 * _unit(1, 3, width=24)
    own = _unit(60, 4, width=24)
    captions = torch.nn.functional.normalize(own + middle, dim=1)
    clips = own[:40] + middle + 1.6 * _unit(40, 5, width=24)
    clips = torch.nn.functional.normalize(torch.cat([clips, middle]), dim=1)
    queries, bank = captions[:40], captions[40:]

    def hits(offsets: Tensor | float = 0.0) -> int:
        first = (queries.double() @ clips.double().T - offsets).argmax(dim=1)
        return int((first == torch.arange(40)).sum())

    plain = hits()
    assert hits(nnn_offsets(bank, clips, 2)) > plain
    assert hits(inverted_softmax_offsets(bank, clips, 20.0)) > plain
    assert hits(sinkhorn_offsets(queries, clips, 20.0)[1]) > plain


def test_k_is_at_most_a_tenth_of_the_bank() -> None:
    assert [bounded_k(128, rows) for rows in (1, 9, 50, 1280, 5000)] == [1, 1, 5, 128, 128]


def test_equal_items_have_equal_offsets() -> None:
    items = torch.cat([ITEMS, ITEMS])
    assert torch.allclose(
        nnn_offsets(BANK, items, 4).view(2, -1).diff(dim=0), torch.zeros(1).double(), atol=1e-14
    )


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(InputError, match="k is 54, but the bank has 53 rows"):
        nnn_offsets(BANK, ITEMS, 54)
    with pytest.raises(InputError, match="k is 0"):
        nnn_offsets(BANK, ITEMS, 0)
    broken = BANK.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 53 rows of the bank are not finite"):
        inverted_softmax_offsets(broken, ITEMS, 20.0)
    with pytest.raises(InputError, match="embeddings of 8 numbers and the items of 4"):
        first_hits(BANK, ITEMS[:, :4])
    with pytest.raises(InputError, match=r"The items must be a matrix .* got shape \[0, 8\]"):
        nnn_offsets(BANK, ITEMS[:0], 1)
    for beta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="a finite number above 0"):
            inverted_softmax_offsets(BANK, ITEMS, beta)
    with pytest.raises(InputError, match="at most 300"):
        sinkhorn_offsets(QUERIES, ITEMS, 301.0)
