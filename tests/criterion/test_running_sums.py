"""A table that finds running sums by ids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atr_moco_plugin.criterion.running_sums import RunningSums, pair_keys


def filled(*pairs: int) -> RunningSums:
    sums = RunningSums()
    keys = torch.tensor(pairs)
    sums.write(keys, rows(keys))
    return sums


def rows(keys: Tensor) -> Tensor:
    return torch.stack([keys, -keys], dim=1).float()


@given(st.lists(st.lists(st.integers(-20, 20), max_size=8), max_size=6))
def test_it_is_a_dictionary(batches: list[list[int]]) -> None:
    sums, expected = RunningSums(), {}
    for at, batch in enumerate(batches):
        values = torch.arange(len(batch)).float() + 100 * at
        sums.write(torch.tensor(batch, dtype=torch.int64), torch.stack([values, -values], 1))
        # Of a key that is twice in a batch the first counts.
        expected |= dict(reversed(list(zip(batch, values.tolist(), strict=True))))
    assert sums.keys.tolist() == sorted(expected) and len(sums) == len(expected)
    asked = torch.arange(-25, 25)
    found = sums.look_up(asked)
    for key, (audio, text) in zip(asked.tolist(), found.tolist(), strict=True):
        if key in expected:
            assert (audio, text) == (expected[key], -expected[key])
        else:
            assert audio != audio and text != text


def test_rows_that_are_not_finite_are_passed_over() -> None:
    sums = filled(1, 2)
    values = torch.tensor([[torch.nan, 0.0], [1.0, -torch.inf], [5.0, 6.0]])
    sums.write(torch.tensor([1, 3, 2]), values)
    assert sums.keys.tolist() == [1, 2]
    assert sums.log_sums.tolist() == [[1, -1], [5, 6]]


def test_keys_part_what_differs_in_clip_or_caption() -> None:
    ids = torch.arange(300)
    grid = torch.cartesian_prod(ids, ids)
    assert len(pair_keys(*grid.unbind(1)).unique()) == 300**2
    large = torch.randint(2**62, (50_000,), generator=torch.Generator().manual_seed(0))
    assert len(pair_keys(large, large.flip(0)).unique()) == 50_000


def test_a_state_of_any_length_loads() -> None:
    saved = filled(5, 1, 9)
    for other in (RunningSums(), filled(2), filled(*range(10))):
        other.load_state_dict(saved.state_dict())
        assert other.keys.tolist() == [1, 5, 9]
        assert torch.equal(other.log_sums, saved.log_sums)


@pytest.mark.parametrize("loaded_first", [True, False])
def test_sums_of_other_data_are_dropped(loaded_first: bool) -> None:
    saved = filled(1, 2)
    saved.set_data(7)
    assert len(saved) == 2  # nobody had said whose they are
    same, other = RunningSums(), RunningSums()
    same.set_data(7)
    same.load_state_dict(saved.state_dict())
    assert len(same) == 2
    with pytest.warns(UserWarning, match="running sums .* another data set, so they start empty"):
        if loaded_first:
            other.load_state_dict(saved.state_dict())
            other.set_data(8)
        else:
            other.set_data(8)
            other.load_state_dict(saved.state_dict())
    assert len(other) == 0 and int(other.data_fingerprint) == 8
