"""A table that finds running sums by ids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.criterion.running_sums import RunningSums


def filled(*ids: int) -> RunningSums:
    sums = RunningSums()
    sums.write(torch.tensor(ids), torch.tensor(ids).float())
    return sums


@given(st.lists(st.lists(st.integers(-20, 20), max_size=8), max_size=6))
def test_it_is_a_dictionary(batches: list[list[int]]) -> None:
    sums, expected = RunningSums(), {}
    for at, batch in enumerate(batches):
        values = torch.arange(len(batch)).float() + 100 * at
        sums.write(torch.tensor(batch, dtype=torch.int64), values)
        # Of an id that is twice in a batch the first counts.
        expected |= dict(reversed(list(zip(batch, values.tolist(), strict=True))))
    assert sums.ids.tolist() == sorted(expected) and len(sums) == len(expected)
    asked = torch.arange(-25, 25)
    found = sums.look_up(asked)
    for one, value in zip(asked.tolist(), found.tolist(), strict=True):
        assert value == expected[one] if one in expected else value != value


def test_sums_that_are_not_finite_are_passed_over() -> None:
    sums = filled(1, 2)
    sums.write(torch.tensor([1, 3, 2]), torch.tensor([torch.nan, -torch.inf, 5.0]))
    assert sums.ids.tolist() == [1, 2]
    assert sums.log_sums.tolist() == [1, 5]


def test_a_state_of_any_length_loads() -> None:
    saved = filled(5, 1, 9)
    for other in (RunningSums(), filled(2), filled(*range(10))):
        other.load_state_dict(saved.state_dict())
        assert other.ids.tolist() == [1, 5, 9]
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
