"""A bank, and the offsets of windows by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import DIM, some_bank, unit

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.bank import (
    LEAST,
    MOST,
    Bank,
    bank_info,
    bank_sentences,
    check_alpha,
    make_bank,
)


def test_a_bank_is_a_set_of_sentences() -> None:
    lines = [f"sentence {n}" for n in range(30)]
    info = bank_info(bank_sentences(lines))
    assert info == bank_info(bank_sentences([*lines[::-1], *lines[:7]]))
    assert (info.sentences, info.neighbours) == (30, 3)
    assert info.digest != bank_info(bank_sentences([*lines[:29], "another"])).digest
    # Each sentence keeps its embedding, whatever the order in which the file has it.
    vectors = dict(zip(lines, unit(np.random.default_rng(0).normal(size=(30, DIM))), strict=True))
    one, other = (
        make_bank(some, lambda asked: np.stack([vectors[x] for x in asked]))
        for some in (lines, lines[::-1])
    )
    np.testing.assert_array_equal(one.embeddings, other.embeddings)


@pytest.mark.parametrize(
    ("sentences", "neighbours"), [(10, 1), (1279, 127), (1280, 128), (9999, 128)]
)
def test_neighbours_are_at_most_a_tenth(sentences: int, neighbours: int) -> None:
    assert bank_info([str(n) for n in range(sentences)]).neighbours == neighbours


@pytest.mark.parametrize("count", [LEAST - 1, MOST + 1])
def test_too_few_and_too_many(count: int) -> None:
    lines = [str(n) for n in range(count)]
    with pytest.raises(InputError, match=f"has {count:,} different sentences, expected 10 to 100,"):
        bank_sentences([*lines, lines[0]])


@given(
    windows=st.integers(1, 40), sentences=st.sampled_from([10, 99, 2000]), seed=st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_an_offset_depends_on_its_window_alone(windows: int, sentences: int, seed: int) -> None:
    bank = some_bank(seed, sentences)
    vectors = unit(np.random.default_rng(seed).normal(size=(windows, DIM))).astype(np.float16)
    together = bank.offsets(vectors)
    alone = np.concatenate([bank.offsets(vectors[n : n + 1]) for n in range(windows)])
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together, alone)
    cosines = np.sort(vectors.astype(np.float64) @ bank.embeddings.T.astype(np.float64), axis=1)
    highest = cosines[:, -bank.info.neighbours :]
    np.testing.assert_allclose(together, highest.mean(axis=1), atol=1e-7)


def test_no_windows_have_no_offsets() -> None:
    assert some_bank(0).offsets(np.empty((0, DIM), np.float16)).shape == (0,)
    vectors = unit(np.ones((1, DIM)))
    same = Bank(some_bank(0).info, np.repeat(vectors, 40, axis=0))
    assert same.offsets(vectors) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("alpha", [-1e-9, 4.001, float("nan"), float("-inf"), True, "1", None])
def test_alphas_that_are_none(alpha: Any) -> None:
    with pytest.raises(InputError, match="give a number from 0 to 4"):
        check_alpha(alpha)
