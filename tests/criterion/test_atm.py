from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.criterion import atm_loss, hard_negatives, prior_entropy


@given(
    b=st.integers(1, 6),
    m=st.integers(1, 8),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([1e-3, 0.07, 0.5]),
)
def test_never_draws_a_positive_and_gives_up_only_where_it_must(
    b: int, m: int, seed: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = (torch.rand(b, m, generator=generator) * 2 - 1) / temperature
    positives = torch.rand(b, m, generator=generator) < 0.5
    drawn = hard_negatives(similarity, positives, generator)
    assert drawn.dtype == torch.int64 and drawn.shape == (b,)
    for row, column in enumerate(drawn.tolist()):
        if column == -1:
            assert bool(positives[row].all())
        else:
            assert not bool(positives[row, column])


def test_draws_follow_the_softmax_over_the_admissible_columns() -> None:
    similarity = torch.tensor([[9.0, 1.0, 0.0, 2.0]])
    positives = torch.tensor([[True, False, False, False]])
    n = 20_000
    drawn = hard_negatives(
        similarity.expand(n, -1), positives.expand(n, -1), torch.Generator().manual_seed(0)
    )
    share = torch.bincount(drawn, minlength=4) / n
    expected = torch.cat([torch.zeros(1), torch.tensor([1.0, 0.0, 2.0]).softmax(0)])
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_a_tiny_temperature_does_not_underflow() -> None:
    # Zeroing the positive after the softmax leaves a row of zeros here.
    similarity = torch.tensor([[1.0, 0.1, 0.2]]) / 1e-3
    drawn = hard_negatives(similarity, torch.tensor([[True, False, False]]))
    assert drawn.tolist() == [2]


def test_nan_does_not_stop_the_draw() -> None:
    similarity = torch.full((2, 3), float("nan"))
    drawn = hard_negatives(similarity, torch.eye(2, 3, dtype=torch.bool))
    assert all(i != j for i, j in enumerate(drawn.tolist()))


def test_a_generator_makes_the_draw_repeatable() -> None:
    similarity, positives = torch.zeros(32, 32), torch.eye(32, dtype=torch.bool)
    first, second = (
        hard_negatives(similarity, positives, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    other = hard_negatives(similarity, positives, torch.Generator().manual_seed(6))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("b", [1, 7, 64])
def test_the_draws_are_those_of_multinomial(b: int) -> None:
    similarity = torch.randn(b, 33, generator=torch.Generator().manual_seed(b)) / 0.07
    positives = torch.arange(33) == torch.arange(b)[:, None]
    for x, mask in ((similarity, positives), (similarity[:, :b].T, positives[:, :b].T)):
        if mask.all():
            continue
        weights = x.masked_fill(mask, float("-inf")).softmax(dim=1)
        expected = torch.multinomial(weights, 1, generator=torch.Generator().manual_seed(3))
        drawn = hard_negatives(x, mask, torch.Generator().manual_seed(3))
        rows = ~mask.all(dim=1)
        assert torch.equal(drawn[rows], expected[rows, 0])


def test_loss_is_the_mean_over_valid_pairs() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [5.0, -5.0]])
    labels = torch.tensor([1, 0, 1])
    loss = atm_loss(logits, labels, torch.tensor([True, True, False]))
    torch.testing.assert_close(loss, F.cross_entropy(logits[:2], labels[:2]))
    assert atm_loss(logits, labels, torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_prior_entropy_is_the_loss_of_a_head_that_only_counts() -> None:
    logits = torch.tensor([[math.log(2.0), 0.0]]).expand(3, -1)
    labels = torch.tensor([1, 0, 0])
    loss = atm_loss(logits, labels, torch.ones(3, dtype=torch.bool))
    assert loss.item() == pytest.approx(prior_entropy(2), abs=1e-6)
    assert pytest.approx(0.6365, abs=1e-4) == prior_entropy(2)
