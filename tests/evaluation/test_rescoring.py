"""Corrections by name give what their formulas do, whatever the grid and the order of items."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atr_moco_plugin.evaluation.corrections import (
    dual_softmax,
    first_hits,
    inverted_softmax_offsets,
    nnn_offsets,
    qb_norm,
    sinkhorn_offsets,
)
from atr_moco_plugin.evaluation.encoded import Encoded
from atr_moco_plugin.evaluation.rescoring import (
    INDUCTIVE,
    TITLES,
    TRANSDUCTIVE,
    Pair,
    rescorings,
    tried,
)


def _unit(rows: int, seed: int) -> Tensor:
    x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def encoded(embeddings: Tensor, rows: Tensor | None = None) -> Encoded:
    result = Encoded(rows)
    result.add(embeddings, None)
    return result


BANK, ITEMS, QUERIES = _unit(60, 0), _unit(21, 1), _unit(9, 2)
COSINES = (QUERIES.double() @ ITEMS.double().T).float()


def _expected(name: str, parameters: dict[str, float], bank: Tensor) -> Tensor:
    beta, k = parameters.get("beta", 0.0), int(parameters.get("k", 1))
    scores = COSINES.double()
    if name == "nnn":
        return scores - parameters["alpha"] * nnn_offsets(bank, ITEMS, k)
    if name in ("csls", "csls_test"):
        return scores - nnn_offsets(bank, ITEMS, k) / 2
    if name == "sinkhorn":
        return scores - sinkhorn_offsets(bank, ITEMS, beta)[1]
    offsets = inverted_softmax_offsets(bank, ITEMS, beta)
    if name == "inverted_softmax":
        return scores - offsets
    if name == "qb_norm":
        return qb_norm(COSINES, offsets, first_hits(bank, ITEMS))
    return dual_softmax(COSINES, offsets, beta)


@pytest.mark.parametrize("name", TITLES)
def test_each_name_is_its_formula(name: str) -> None:
    bank = QUERIES if name in TRANSDUCTIVE else BANK
    grid = tried(name, len(bank))
    found = list(rescorings(name, grid, bank, encoded(ITEMS)))
    assert len(found) == len(grid) > 0
    for parameters, rescore in zip(grid, found, strict=True):
        expected = _expected(name, parameters, bank)
        # Offsets are rounded to float32, which a dual softmax multiplies by beta.
        torch.testing.assert_close(rescore(COSINES), expected, atol=1e-7, rtol=2e-5)


@pytest.mark.parametrize("name", TITLES)
def test_equal_captions_still_tie(name: str) -> None:
    """Items 3 and 21 are one caption: its scores are equal to the last bit."""
    rows = torch.cat([torch.arange(21), torch.tensor([3, 3])])
    cosines = COSINES[:, rows]
    bank = QUERIES if name in TRANSDUCTIVE else BANK
    for rescore in rescorings(name, tried(name, len(bank)), bank, encoded(ITEMS, rows)):
        scores = rescore(cosines)
        assert scores.shape == (9, 23)
        assert torch.equal(scores[:, 3], scores[:, 21])
        assert torch.equal(scores[:, 3], scores[:, 22])


@pytest.mark.parametrize("name", [*INDUCTIVE, *TRANSDUCTIVE])
def test_a_collapsed_gallery_still_ties(name: str) -> None:
    """203 equal clips, each embedded by itself, are as many as a matrix product adds up in two
    ways."""
    draw = torch.Generator().manual_seed(203)
    one = torch.nn.functional.normalize(torch.randn(1, 128, generator=draw), dim=1)
    bank = torch.nn.functional.normalize(torch.randn(1500, 128, generator=draw), dim=1)
    for rescore in rescorings(name, tried(name, 1500), bank, encoded(one.repeat(203, 1))):
        assert len(rescore(torch.full((1, 203), 0.25)).unique()) == 1


def test_sinkhorn_counts_an_item_as_often_as_it_is_there() -> None:
    rows = torch.cat([torch.arange(21), torch.full((6,), 3)])
    (rescore,) = rescorings("sinkhorn", [{"beta": 10.0}], QUERIES, encoded(ITEMS, rows))
    offsets = COSINES[:, rows].double() - rescore(COSINES[:, rows])
    expected = sinkhorn_offsets(QUERIES, ITEMS[rows], 10.0)[1]
    torch.testing.assert_close(offsets[0], expected, atol=1e-6, rtol=0)


def test_no_k_is_above_a_tenth_of_the_bank_and_none_is_tried_twice() -> None:
    assert [p["k"] for p in tried("csls", 5000)] == [5, 10, 20, 50]
    assert [p["k"] for p in tried("csls", 120)] == [5, 10, 12]
    assert [p["k"] for p in tried("csls", 7)] == [1]
    assert {p["k"] for p in tried("nnn", 50)} == {1, 4, 5}
    assert len(tried("nnn", 50)) == 12
    # Parameters of a large validation split, on a small test split.
    (rescore,) = rescorings("csls_test", [{"k": 50}], BANK, encoded(ITEMS))
    expected = COSINES.double() - nnn_offsets(BANK, ITEMS, 6) / 2
    torch.testing.assert_close(rescore(COSINES), expected)


def test_a_bank_has_a_caption_once_and_test_queries_have_it_as_often_as_asked() -> None:
    rows = torch.tensor([0, 1, 1, 2])
    pair = Pair(encoded(_unit(2, 3)), encoded(_unit(3, 4), rows))
    assert len(pair.bank("t2a")) == 3 and len(pair.queries("t2a")) == 4
    assert len(pair.bank("a2t")) == len(pair.queries("a2t")) == 2
    assert pair.items("a2t") is pair.text and pair.items("t2a") is pair.audio


def test_inductive_and_transductive_are_apart() -> None:
    assert not INDUCTIVE.keys() & TRANSDUCTIVE.keys()
    assert TITLES.keys() == INDUCTIVE.keys() | TRANSDUCTIVE.keys()
