"""The matching loss waits until it can learn, and leaves no trace until then."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from atr_moco_plugin.criterion import MocoAtc, MocoAtcAtm, MocoAtcAtmConfig, MocoAtcConfig
from atr_moco_plugin.criterion.matching_start import (
    DECIDE_EVERY,
    THRESHOLD,
    MatchingStart,
    first_of_eight,
    head_is_trained,
    ranking_sums,
)
from atr_moco_plugin.errors import InputError

OPTIONS: dict[str, Any] = {"queue_size": 16, "momentum": 0.9}


def unit(n: int, seed: int, d: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)


def near(a: Tensor, noise: float, seed: int) -> Tensor:
    return torch.nn.functional.normalize(a + noise * unit(len(a), seed, a.size(1)), dim=1)


def by_hand(a: Tensor, u: Tensor, positives: Tensor) -> float:
    """The same in float64, by counting draws of seven negatives of each query."""
    similarity = a.double().numpy() @ u.double().numpy().T
    first, drawn = [], []
    for scores, same in ((similarity, positives.numpy()), (similarity.T, positives.numpy().T)):
        for i, row in enumerate(scores):
            negatives = row[~same[i]]
            n, behind = len(negatives), int((negatives < row[i]).sum())
            if n:
                k = min(7, n)
                first.append(math.comb(behind, k) / math.comb(n, k))
                drawn.append(k)
    return float(np.mean(first) ** (7 / np.mean(drawn)))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9, 40])
def test_the_rule_counts_draws(n: int) -> None:
    a = unit(n, 0)
    u = near(a, 0.8, 1)
    positives = torch.eye(n, dtype=torch.bool)
    if n > 4:
        positives[1, 2] = positives[2, 1] = True
    assert float(first_of_eight(ranking_sums(a, u, positives))) == pytest.approx(
        by_hand(a, u, positives), rel=1e-5
    )


def test_the_size_of_the_batch_does_not_matter() -> None:
    a = unit(4_096, 0, 16)
    u = near(a, 2.0, 1)
    found = {
        n: float(
            first_of_eight(
                sum(
                    ranking_sums(x, y, torch.eye(n, dtype=torch.bool))
                    for x, y in zip(a.split(n), u.split(n), strict=True)
                )
            )
        )
        for n in (4, 8, 64, 4_096)
    }
    assert 0.3 < found[4_096] < 0.9
    assert found[8] == pytest.approx(found[4_096], abs=0.015)
    assert found[64] == pytest.approx(found[4_096], abs=0.015)
    assert found[4_096] - 0.2 < found[4] < found[4_096]  # late rather than early


def test_what_cannot_be_told_apart_or_is_not_finite_is_not_found() -> None:
    eye, point = torch.eye(8, dtype=torch.bool), torch.ones(8, 4) / 2
    assert float(first_of_eight(ranking_sums(point, point, eye))) == 0.0
    broken = torch.full((8, 4), torch.nan)
    assert float(first_of_eight(ranking_sums(broken, broken, eye))) == 0.0
    nothing = ranking_sums(point[:1], point[:1], eye[:1, :1])
    assert nothing.tolist() == [0, 0, 0] and first_of_eight(nothing).isnan()


def steps(start: MatchingStart, n: int, a: Tensor, u: Tensor, first: int = 1) -> list[bool]:
    due = []
    for step in range(first, first + n):
        start.look(a, u, torch.eye(len(a), dtype=torch.bool))
        start.on_optimizer_step(step, None)
        due.append(start.is_due(step))
    return due


def test_it_begins_once_and_never_ends() -> None:
    a = unit(16, 0)
    start = MatchingStart("auto")
    assert not any(steps(start, 25, a, unit(16, 1)))
    due = steps(start, 200, a, a, first=26)
    begun = due.index(True)
    assert (begun + 26) % DECIDE_EVERY == 0 and all(due[begun:])
    assert start.begun_at == begun + 26 and float(first_of_eight(start.sums)) >= THRESHOLD
    assert all(steps(start, 30, a, unit(16, 1), first=226)) and not start.looks


def test_ordered_embeddings_begin_at_the_first_decision() -> None:
    a = unit(2, 0)
    assert steps(MatchingStart("auto"), 11, a, a) == [False] * 9 + [True] * 2


@pytest.mark.parametrize(("total", "begun"), [(None, 10), (40, 30), (100, 60), (16, 10)])
def test_it_waits_for_the_last_part_of_a_run(total: int | None, begun: int) -> None:
    a, start = unit(8, 0), MatchingStart("auto")
    for step in range(1, begun + 1):
        assert not start.begun
        start.look(a, a, torch.eye(8, dtype=torch.bool))
        start.on_optimizer_step(step, total)
    assert start.begun_at == begun


@pytest.mark.parametrize(
    ("start", "every", "due"), [(0, 1, "111111"), (2, 1, "001111"), (1, 2, "010101")]
)
def test_steps_by_number(start: int, every: int, due: str) -> None:
    wait = MatchingStart(start, every)
    found, turns = [], []
    for step in range(6):
        found.append(wait.is_due(step))
        if found[-1]:
            turns.append(wait.turn(step))
        wait.on_optimizer_step(step + 1, None)
    assert found == [x == "1" for x in due]
    assert turns == list(range(sum(found)))  # what is done in turns is, whatever `every`


def test_a_run_that_ends_without_it_is_told() -> None:
    wait = MatchingStart("auto")
    for step in range(1, 11):
        if step in (8, 10):
            with pytest.warns(UserWarning, match=f"not begun after {step} of 10 steps: an item"):
                wait.on_optimizer_step(step, 10)
        else:
            wait.on_optimizer_step(step, 10)
    wait = MatchingStart(9)
    for step in range(1, 8):
        wait.on_optimizer_step(step, 8)
    with pytest.warns(UserWarning, match="not begun after 8 of 8 steps: `atm_start` is 9"):
        wait.on_optimizer_step(8, 8)


def test_a_start_that_the_run_does_not_reach_is_warned_of_at_once(tiny_model, tiny_batch) -> None:
    loop = Loop(tiny_model(), tiny_batch, atm_start=9)
    loop.criterion.total_steps = 9
    with pytest.warns(UserWarning, match="is 9, but the run has 9 steps: the matching") as found:
        loop.run(range(2))
    assert len([x for x in found if "never be trained" in str(x.message)]) == 1


def test_large_batches_in_half_precision_are_counted() -> None:
    wait = MatchingStart("auto").half()
    a, same = unit(1_024, 0, 16), torch.eye(1_024, dtype=torch.bool)
    for step in range(1, 11):
        wait.look(a, a, same)
        wait.on_optimizer_step(step, None)
    assert wait.begun_at == 10


class Loop:
    def __init__(self, model: Any, batch: Any, kind: Any = MocoAtcAtm, **options: Any) -> None:
        if kind is MocoAtc:
            self.criterion: Any = MocoAtc(model, MocoAtcConfig(**OPTIONS, **options)).train()
        else:
            config = MocoAtcAtmConfig(**OPTIONS, **options)
            self.criterion = MocoAtcAtm(model, config).train()
        self.optimizer = AdamW(self.criterion.parameters(), lr=1e-3, weight_decay=0.1)
        self.criterion.attach(self.optimizer)
        self.batch = batch

    def run(self, steps: range) -> list[dict[str, float]]:
        found = []
        for i in steps:
            losses = self.criterion(**self.batch(b=6, seed=i))
            losses["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            found.append({name: float(value) for name, value in losses.items()})
        return found

    @property
    def head(self) -> dict[str, Tensor]:
        return self.criterion.model.head.state_dict()


def only_head(criterion: MocoAtcAtm) -> list[Any]:
    return [p for name, p in criterion.named_parameters() if name.startswith("model.head")]


@pytest.mark.parametrize("fusion", ["blip", "albef"])
def test_until_then_it_is_moco_atc_to_the_last_bit(tiny_model, tiny_batch, fusion: str) -> None:
    waits = Loop(tiny_model(fusion=fusion), tiny_batch, atm_start=4)
    plain = Loop(tiny_model(fusion=fusion), tiny_batch, MocoAtc)
    before = copy.deepcopy(waits.head)
    found, expected = waits.run(range(4)), plain.run(range(4))
    for one, other in zip(found, expected, strict=True):
        assert {name: one[name] for name in other} == other
        assert math.isnan(one["loss_atm"]) and math.isnan(one["atm_accuracy"])
    state = waits.criterion.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in plain.criterion.state_dict().items())
    assert all(torch.equal(x, before[name]) for name, x in waits.head.items())  # no decay
    assert not any(p in waits.optimizer.state for p in only_head(waits.criterion))
    assert not waits.criterion.head_trained and not head_is_trained(state)
    found = waits.run(range(4, 5))
    assert found[0]["loss_atm"] > 0
    assert not torch.equal(before["classifier.weight"], waits.head["classifier.weight"])
    assert all(p in waits.optimizer.state for p in only_head(waits.criterion))
    assert waits.criterion.head_trained and head_is_trained(waits.criterion.state_dict())


def test_steps_left_out_later_leave_the_head_alone(tiny_model, tiny_batch) -> None:
    loop = Loop(tiny_model(), tiny_batch, atm_start=0, atm_every=3)
    for step in range(6):
        before = copy.deepcopy(loop.head)
        (losses,) = loop.run(range(step, step + 1))
        matches = step % 3 == 0
        assert math.isnan(losses["loss_atm"]) != matches
        moved = [not torch.equal(x, before[name]) for name, x in loop.head.items()]
        assert any(moved) == matches


@pytest.mark.parametrize("start", ["auto", 7])
@pytest.mark.parametrize("at", [3, 9, 10, 13])
def test_a_resume_is_bitwise_across_the_start(tiny_model, tiny_batch, start: Any, at: int) -> None:
    def loop(seed: int = 0) -> Loop:
        return Loop(
            tiny_model(seed=seed), tiny_batch, atm_start=start, atm_every=2, temperature=0.5
        )

    whole, stopped, resumed = loop(), loop(), loop(seed=1)
    if start == "auto":  # tiny random models find nothing: as if they had for a while
        for one in (whole, stopped):
            one.criterion.matching_start.sums.copy_(torch.tensor([900.0, 5_000.0, 1_000.0]) * 1.2)
    expected = whole.run(range(16))[at:]
    stopped.run(range(at))
    resumed.criterion.load_state_dict(copy.deepcopy(stopped.criterion.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(stopped.optimizer.state_dict()))
    assert str(resumed.run(range(at, 16))) == str(expected)
    assert whole.criterion.matching_since == (10 if start == "auto" else 7)
    state = resumed.criterion.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in whole.criterion.state_dict().items())


def test_accumulated_passes_are_alike(tiny_model, tiny_batch) -> None:
    loop = Loop(tiny_model(), tiny_batch, atm_start=0, atm_every=2)
    for step in range(4):
        for _ in range(3):
            losses = loop.criterion(**tiny_batch(seed=step))
            losses["loss"].backward()
            assert losses["loss_atm"].isnan() == (step % 2 == 1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()


def test_evaluation_has_the_loss_once_it_has_begun_and_leaves_no_trace(
    tiny_model, tiny_batch
) -> None:
    waits = Loop(tiny_model(), tiny_batch).criterion
    sums = waits.matching_start.sums.clone()
    with torch.no_grad():
        assert waits.eval()(**tiny_batch())["loss_atm"].isnan()
    assert torch.equal(waits.matching_start.sums, sums)
    loop = Loop(tiny_model(), tiny_batch, atm_start=0, atm_every=2)
    loop.run(range(1))
    with torch.no_grad():
        assert loop.criterion(**tiny_batch())["loss_atm"] > 0


def test_older_states_have_matched_from_the_start(tiny_model) -> None:
    def loaded(drop: str, kind: Any = MocoAtcAtm) -> MocoAtcAtm:
        config = MocoAtcAtmConfig(queue_size=8) if kind is MocoAtcAtm else MocoAtcConfig(**OPTIONS)
        state = kind(tiny_model(), config).state_dict()
        state = {name: x for name, x in state.items() if not name.startswith(drop)}
        state["num_steps"] += 5
        criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(queue_size=8))
        if kind is MocoAtc:
            criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(**OPTIONS))
        criterion.load_state_dict(state, strict=kind is MocoAtcAtm)
        return criterion

    assert loaded("matching_start").matching_since == 0
    assert loaded("matching_start").head_trained
    assert loaded("nothing").matching_since == -1
    assert loaded("nothing", MocoAtc).matching_since == -1
    weights = {"model.head.classifier.bias": torch.ones(2)}
    criterion = MocoAtcAtm(tiny_model(), MocoAtcAtmConfig())
    criterion.load_state_dict(weights, strict=False)
    assert criterion.matching_since == -1
    assert head_is_trained({"temperature": torch.ones(1)})


@pytest.mark.parametrize(("start", "since"), [(0, 5), (5, 5), (6, -1), ("auto", -1)])
def test_a_lower_start_counts_from_the_first_pass_after_a_load(
    start: Any, since: int, tiny_model, tiny_batch
) -> None:
    saved = Loop(tiny_model(), tiny_batch).criterion.state_dict()
    saved["num_steps"] += 5
    criterion = Loop(tiny_model(), tiny_batch, atm_start=start).criterion
    criterion.load_state_dict(saved)
    assert criterion.matching_since == since and not criterion.head_trained
    assert criterion(**tiny_batch(b=6))["loss_atm"].isnan() == (since < 0)


def test_it_starts_anew_with_its_criterion(tiny_model, tiny_batch) -> None:
    loop = Loop(tiny_model(), tiny_batch, atm_start=1)
    loop.run(range(2))
    assert loop.criterion.matching_since == 1
    loop.criterion.reset_parameters()
    assert loop.criterion.matching_since == -1 and loop.criterion.matching_start.sums.sum() == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"atm_start": -1}, "`atm_start` is -1, expected .*, or auto"),
        ({"atm_every": 0}, "`atm_every` is 0"),
        ({"atm_pairs": "two"}, "`atm_pairs`"),
        ({"atm_start": "later"}, "`atm_start`"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        MocoAtcAtmConfig(**options)
