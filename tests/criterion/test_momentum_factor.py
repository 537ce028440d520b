"""What a step moves the momentum copies by; ``test_columns`` holds whole runs to a slow form."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from table_model import TableModel, table_batch
from torch.optim import SGD

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.criterion.momentum_factor import MomentumFactor, cosine_momentum
from atr_moco_plugin.errors import InputError


def make(**options: Any) -> MocoAtc:
    return MocoAtc(TableModel(), MocoAtcConfig(queue_size=8, **options)).train()


def test_a_run_is_evaluated_whatever_its_length_was() -> None:
    criterion = make(momentum_schedule="cosine").eval()
    out = criterion(**table_batch(4, seed=0))
    assert out["loss"].isfinite() and out["momentum"].isnan()


def test_the_cosine_of_byol() -> None:
    found = [cosine_momentum(0.96, k, 10) for k in (0, 5, 10, 11)]
    assert found == pytest.approx([0.96, 0.98, 1, 1])


def test_a_schedule_without_the_length_of_the_run_is_refused_in_the_first_pass() -> None:
    criterion = make(momentum_schedule="cosine")
    with pytest.raises(InputError, match="set `criterion.total_steps = N` before the first step"):
        criterion(**table_batch(4, seed=0))
    criterion.total_steps = 10
    assert criterion(**table_batch(4, seed=0))["momentum"].item() == pytest.approx(0.995)


def test_a_factor_per_pair_keeps_its_time_scale() -> None:
    moved = []
    for size in (4, 8):
        criterion = make(momentum_per="pair", momentum=0.98)
        start = criterion.momentum_copies["audio"].module.get_parameter("weight").clone()
        with torch.no_grad():
            criterion.model.audio.weight += 1
        for step in range(16 // size):
            out = criterion(**table_batch(size, seed=step))
            assert out["momentum"].item() == pytest.approx(0.98**size)
            criterion.on_optimizer_step()
        moved.append(criterion.momentum_copies["audio"].module.get_parameter("weight") - start)
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved[0], torch.full_like(moved[0], 1 - 0.98**16))


def test_a_factor_of_a_step_given_for_a_pair_is_warned_of_once() -> None:
    criterion = make(momentum_per="pair", momentum=0.8)
    criterion(**table_batch(2, seed=0))
    criterion(**table_batch(4, seed=1))
    with pytest.warns(UserWarning, match=r"0.26 in a step of 6 pairs.*set `momentum` to 0.998326"):
        criterion.on_optimizer_step()
    with warnings.catch_warnings(action="error"):
        criterion(**table_batch(6, seed=2))
        criterion.on_optimizer_step()


def test_a_factor_of_a_pair_for_large_batches_is_no_mistake() -> None:
    factor = MomentumFactor(MocoAtcConfig(momentum_per="pair", momentum=0.9984))
    factor.saw(4096)
    with warnings.catch_warnings(action="error"):
        factor.next_step()
    factor = MomentumFactor(MocoAtcConfig(momentum_per="pair", momentum=0.995))
    factor.saw(4096)
    with pytest.warns(UserWarning, match="set `momentum` to 0.99999755"):
        factor.next_step()


def test_pairs_of_a_step_that_was_left_out_do_not_count() -> None:
    criterion = make(momentum_per="pair", momentum=0.95)
    criterion(**table_batch(6, seed=0))
    criterion.on_step_skipped()
    assert criterion(**table_batch(4, seed=0))["momentum"].item() == pytest.approx(0.95**4)
    criterion.eval()
    criterion(**table_batch(5, seed=0))
    criterion.train()
    assert criterion(**table_batch(4, seed=1))["momentum"].item() == pytest.approx(0.95**8)


@pytest.mark.parametrize("after", [4, 5])  # 5 is the middle of an accumulation
def test_resume_is_exact(after: int) -> None:
    config = MocoAtcConfig(
        queue_size=12, momentum=0.97, momentum_per="pair", momentum_schedule="cosine",
        columns="online",
    )  # fmt: skip

    def start(seed: int) -> tuple[MocoAtc, SGD]:
        criterion = MocoAtc(TableModel(seed=seed), config).train()
        criterion.total_steps = 6
        optimizer = SGD([p for p in criterion.parameters() if p.requires_grad], lr=0.1)
        criterion.attach(optimizer)
        return criterion, optimizer

    def run(criterion: MocoAtc, optimizer: SGD, passes: range) -> list[float]:
        losses = []
        for i in passes:
            out = criterion(**table_batch(4, seed=i))
            out["loss"].backward()
            losses += [out["loss"].item(), out["momentum"].item()]
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
        return losses

    whole = start(0)
    run(*whole, range(after))
    state, grads = copy.deepcopy((whole[0].state_dict(), [p.grad for p in whole[0].parameters()]))
    expected = run(*whole, range(after, 10))
    resumed = start(1)
    resumed[0].load_state_dict(state)
    for p, grad in zip(resumed[0].parameters(), grads, strict=True):
        p.grad = grad
    assert run(*resumed, range(after, 10)) == expected
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name]), name
