"""Hard negatives are drawn anew in every pass that trains, and evaluation leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig

# Every item has many negatives that are as good as each other, so that draws differ.
CONFIG = MocoAtcAtmConfig(atm_start=0, queue_size=16, temperature=0.5)
PASSES = 2  # an optimizer step


class Loop:
    """A plain loop with accumulation and dropout-free towers, and evaluation where it is told."""

    def __init__(self, model: Any, batch: Any) -> None:
        self.criterion = MocoAtcAtm(model, CONFIG).train()
        self.optimizer = AdamW([p for p in self.criterion.parameters() if p.requires_grad], lr=1e-3)
        self.batch = batch
        self.losses: list[float] = []

    def one_pass(self) -> None:
        """A pass that trains, and the optimizer's step when the window is full."""
        loss = self.criterion(**self.batch(b=8, seed=len(self.losses)))
        (loss["loss"] / PASSES).backward()
        self.losses.append(loss["loss_atm"].item())
        if len(self.losses) % PASSES == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.criterion.on_optimizer_step()

    def evaluate(self) -> None:
        """Passes in eval mode and passes without a gradient, which both train nothing."""
        self.criterion.eval()
        self.criterion(**self.batch(b=8, seed=99))
        self.criterion.train()
        with torch.no_grad():
            self.criterion(**self.batch(b=8, seed=98))

    def resumed(self, model: Any) -> Loop:
        """Another loop from what this one saves: states, and the gradients of an open window."""
        other = Loop(model, self.batch)
        other.criterion.load_state_dict(copy.deepcopy(self.criterion.state_dict()))
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        for mine, theirs in zip(
            self.criterion.parameters(), other.criterion.parameters(), strict=True
        ):
            theirs.grad = None if mine.grad is None else mine.grad.clone()
        other.losses = list(self.losses)
        return other


def assert_same(one: Loop, other: Loop) -> None:
    assert one.losses == other.losses
    state = other.criterion.state_dict()
    for name, value in one.criterion.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.fixture
def loops(tiny_model, tiny_batch) -> Any:
    return lambda: Loop(tiny_model(), tiny_batch)


def test_evaluation_changes_nothing(loops) -> None:
    plain, evaluated = loops(), loops()
    for _ in range(4 * PASSES):
        for loop in (plain, evaluated):
            loop.one_pass()
        evaluated.evaluate()
    assert_same(evaluated, plain)


@pytest.mark.parametrize("passes", [2 * PASSES, 2 * PASSES + 1])
def test_a_resume_is_exact_between_steps_and_within_an_accumulation(
    loops, tiny_model, passes: int
) -> None:
    whole = loops()
    for _ in range(passes):
        whole.one_pass()
    whole.evaluate()
    resumed = whole.resumed(tiny_model(seed=1))
    torch.manual_seed(123)  # the draws must not hang on the global state
    for _ in range(passes, 4 * PASSES):
        for loop in (whole, resumed):
            loop.one_pass()
    assert_same(resumed, whole)


def test_passes_of_one_step_draw_other_negatives(loops, tiny_batch) -> None:
    criterion = loops().criterion
    batch = tiny_batch(b=8)
    first, second = (criterion(**batch)["loss_atm"].item() for _ in range(2))
    criterion.eval()
    third, fourth = (criterion(**batch)["loss_atm"].item() for _ in range(2))
    assert len({first, second, third}) == 3 and third == fourth


def test_a_checkpoint_from_before_the_count_was_saved_is_of_the_end_of_a_step(
    loops, tiny_model
) -> None:
    loop = loops()
    for _ in range(PASSES):
        loop.one_pass()
    state = loop.criterion.state_dict()
    del state["num_draws"]
    other = loops()
    other.one_pass()
    other.criterion.load_state_dict(state)
    assert int(other.criterion.num_draws) == 0
    batch = loop.batch(b=8, seed=50)
    assert other.criterion(**batch)["loss_atm"] == loop.criterion(**batch)["loss_atm"]
