"""One hook on the optimizer's step, and the warning of a loop that has none."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch
from linear import LinearModel, linear_batch
from torch import nn
from torch.optim import SGD, AdamW

from atr_moco_plugin.criterion import (
    Atc,
    AtcConfig,
    MocoAtc,
    MocoAtcAtm,
    MocoAtcAtmConfig,
    MocoAtcConfig,
)
from atr_moco_plugin.safety import FiniteGuard

CRITERIA = {
    "atc": lambda: Atc(LinearModel(), AtcConfig()),
    "moco_atc": lambda: MocoAtc(LinearModel(), MocoAtcConfig(queue_size=8)),
    "moco_atc_atm": lambda: MocoAtcAtm(LinearModel(), MocoAtcAtmConfig(atm_start=0, queue_size=8)),
}
LEFT_OUT = "trainable parameters of the criterion are in no attached optimizer"
TOLD = "write `criterion.attach\\(optimizer\\)`"


@pytest.fixture
def criterion() -> MocoAtcAtm:
    return MocoAtcAtm(LinearModel(), MocoAtcAtmConfig(atm_start=0, queue_size=8, momentum=0.5))


def optimizer_of(criterion: nn.Module, **options: object) -> AdamW:
    parameters = [p for p in criterion.parameters() if p.requires_grad]
    return AdamW(parameters, **{"lr": 0.1, **options})


def step(criterion: Atc, optimizer: torch.optim.Optimizer, seed: int = 0, passes: int = 1) -> None:
    for i in range(passes):
        criterion(**linear_batch(seed + i))["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()


def average(criterion: MocoAtc) -> torch.Tensor:
    return criterion.audio_m.module.encoder.weight


def test_the_averages_follow_the_optimizer_and_accumulated_batches_count_once(criterion) -> None:
    optimizer = optimizer_of(criterion)
    criterion.attach(optimizer)
    expected = average(criterion).clone()
    for number in range(3):
        step(criterion, optimizer, seed=10 * number, passes=3)
        expected.lerp_(criterion.model.audio.encoder.weight.detach(), 0.5)
        torch.testing.assert_close(average(criterion), expected)
    assert int(criterion.num_steps) == 3


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", CRITERIA)
def test_a_loop_that_tells_the_criterion_nothing_is_warned_once(name: str, fused: bool) -> None:
    criterion = CRITERIA[name]()
    optimizer = optimizer_of(criterion, fused=fused)
    step(criterion, optimizer)
    with pytest.warns(UserWarning, match=TOLD) as caught:
        for seed in range(1, 5):
            step(criterion, optimizer, seed)
    assert len(caught) == 1


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("way", ["attach", "call", "accumulate", "load", "evaluate", "cast"])
def test_nobody_else_is_warned(name: str, way: str) -> None:
    criterion = CRITERIA[name]()
    optimizer = optimizer_of(criterion)
    if way == "attach":
        criterion.attach(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(4):
            if way == "evaluate":
                with torch.no_grad():
                    criterion(**linear_batch(seed))
                optimizer.step()
                continue
            criterion(**linear_batch(seed))["loss"].backward()
            if way in ("attach", "call"):
                optimizer.step()
                optimizer.zero_grad()
            if way == "call":
                criterion.on_optimizer_step()
            elif way == "load":
                criterion.load_state_dict(CRITERIA[name]().state_dict())
            elif way == "cast":
                criterion.double().float()


def test_writes_without_an_optimizer_of_torch_are_seen(criterion) -> None:
    criterion(**linear_batch())["loss"].backward()
    with torch.no_grad():
        for p in criterion.model.parameters():
            p.sub_(p.grad)
    with pytest.warns(UserWarning, match=TOLD):
        criterion(**linear_batch(1))


def test_the_optimizer_of_another_model_is_none_of_ours(criterion) -> None:
    other = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            criterion(**linear_batch(seed))["loss"].backward()
            other.step()


@pytest.mark.parametrize("way", ["a new optimizer", "one more optimizer"])
def test_steps_of_an_optimizer_that_is_not_attached_are_warned_of_once(criterion, way: str) -> None:
    new = way == "a new optimizer"
    attached = optimizer_of(criterion if new else criterion.model.audio)
    other = optimizer_of(criterion if new else criterion.model.text)
    with nullcontext() if new else pytest.warns(UserWarning, match=LEFT_OUT):
        criterion.attach(attached)
    step(criterion, attached)
    with pytest.warns(UserWarning, match="second optimizer has changed") as caught:
        for seed in range(1, 4):
            criterion(**linear_batch(seed))["loss"].backward()
            for optimizer in (other,) if new else (attached, other):
                optimizer.step()
    assert len(caught) == 1


@pytest.mark.parametrize("way", ["both attached", "the last attached", "left out", "written"])
def test_steps_that_the_attached_optimizers_end_are_not_warned_of(criterion, way: str) -> None:
    last = optimizer_of(criterion.model.audio)
    own = {id(p) for p in criterion.model.audio.parameters()}
    first = AdamW([p for p in criterion.parameters() if p.requires_grad and id(p) not in own])
    with nullcontext() if way == "both attached" else pytest.warns(UserWarning, match=LEFT_OUT):
        criterion.attach([first, last] if way == "both attached" else last)
    if way == "left out":
        FiniteGuard([last, first], criterion, max_skipped=9, warn=lambda _: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            criterion(**linear_batch(seed))["loss"].backward()
            if way == "left out":
                criterion.model.head.weight.grad.fill_(math.nan)
                criterion.model.audio.encoder.weight.grad.fill_(math.nan)
                last.step()
            elif way == "written":
                with torch.no_grad():
                    criterion.model.text.projection.weight.mul_(0.9)
                    criterion.temperature.mul_(0.9)
                last.step()
                continue
            first.step()
            if way != "left out":
                last.step()


def test_the_warning_comes_back_where_the_handle_was_removed(criterion) -> None:
    optimizer = optimizer_of(criterion)
    handle = criterion.attach(optimizer)
    step(criterion, optimizer)
    handle.remove()
    handle.remove()
    step(criterion, optimizer, 1)
    assert int(criterion.num_steps) == 1
    with pytest.warns(UserWarning, match=TOLD):
        step(criterion, optimizer, 2)
    criterion.attach(optimizer_of(criterion))  # of another optimizer, now that it is free


def test_attaching_twice_changes_nothing(criterion) -> None:
    optimizer = optimizer_of(criterion)
    assert criterion.attach(optimizer) is criterion.attach(optimizer)
    step(criterion, optimizer)
    assert int(criterion.num_steps) == 1


def test_what_cannot_be_attached_is_refused(criterion) -> None:
    other = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="The SGD has none of the criterion's parameters"):
        criterion.attach(other)
    with pytest.raises(ValueError, match="The SGD has none of the criterion's parameters"):
        criterion.attach([optimizer_of(criterion), other])
    with pytest.raises(ValueError, match="needs an optimizer of torch.*got a str"):
        criterion.attach("adamw")
    with pytest.raises(ValueError, match="an empty list"):
        criterion.attach([])
    first = optimizer_of(criterion)
    criterion.attach(first)
    with pytest.raises(ValueError, match="attached to another optimizer already"):
        criterion.attach(optimizer_of(criterion))
    del first  # as in a notebook whose cell runs again
    criterion.attach(optimizer_of(criterion))


def test_parameters_that_no_attached_optimizer_has_are_named_once(criterion) -> None:
    own = [name for name, _ in criterion.model.named_parameters()]
    optimizer = AdamW(criterion.model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="1 trainable .*: temperature. What no opt") as caught:
        criterion.attach(optimizer)
        criterion.attach(optimizer)
    assert len(caught) == 1
    twin = copy.deepcopy(criterion)
    left_out = len(own) + 1 - 4
    with pytest.warns(UserWarning, match=f"{left_out} trainable .* and {left_out - 3} more"):
        twin.attach(optimizer_of(twin.model.audio))


@pytest.mark.parametrize("way", ["all", "two", "frozen", "compiled"])
def test_whoever_trains_all_that_is_trainable_is_not_warned(criterion, way: str) -> None:
    if way == "compiled":
        criterion.model.audio = torch.compile(criterion.model.audio, backend="eager")
    optimizers = [optimizer_of(criterion)]
    if way == "two":
        rest = [criterion.temperature, *criterion.model.head.parameters()]
        towers = [*criterion.model.audio.parameters(), *criterion.model.text.parameters()]
        optimizers = [SGD(towers, lr=0.1), SGD(rest, lr=0.1)]
    if way == "frozen":
        optimizers = [AdamW(criterion.model.parameters(), lr=0.1)]
        criterion.temperature.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion.attach(optimizers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_warned_of(criterion, dtype: torch.dtype) -> None:
    criterion.model.text.to(dtype)
    with pytest.warns(UserWarning, match=r"4 .* half precision.*model\.text\.encoder\.w") as caught:
        criterion.attach(optimizer_of(criterion))
    assert len(caught) == 1
    frozen = copy.deepcopy(criterion)
    frozen.model.text.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen.attach(optimizer_of(frozen))


def test_several_optimizers_make_one_step(criterion) -> None:
    towers = AdamW(
        [*criterion.model.audio.parameters(), *criterion.model.text.parameters()], lr=0.1
    )
    rest = SGD([*criterion.model.head.parameters(), criterion.temperature], lr=0.1)
    criterion.attach([towers, rest])
    for seed in range(2):
        criterion(**linear_batch(seed))["loss"].backward()
        towers.step()
        assert int(criterion.num_steps) == seed
        rest.step()
        assert int(criterion.num_steps) == seed + 1


def test_a_wrapped_optimizer_is_looked_through(criterion) -> None:
    accelerate = pytest.importorskip("accelerate")
    optimizer = accelerate.Accelerator(cpu=True).prepare(optimizer_of(criterion))
    assert type(optimizer).__name__ == "AcceleratedOptimizer"
    criterion.attach(optimizer)
    step(criterion, optimizer)
    assert int(criterion.num_steps) == 1


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradient_scaler_leaves_out_is_none(criterion, fused: bool) -> None:
    optimizer = optimizer_of(criterion, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    criterion.attach(optimizer)
    counts = []
    for seed, factor in enumerate((1.0, math.inf, 1.0)):
        before = average(criterion).clone()
        scaler.scale(criterion(**linear_batch(seed))["loss"] * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        counts.append(int(criterion.num_steps))
        assert torch.equal(average(criterion), before) == (factor == math.inf)
    assert counts == [1, 1, 2]


def test_pairs_of_a_step_that_a_fused_optimizer_leaves_out_are_not_counted() -> None:
    config = MocoAtcConfig(queue_size=8, momentum=0.99, momentum_per="pair")
    criterion = MocoAtc(LinearModel(), config).train()
    optimizer = optimizer_of(criterion, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    criterion.attach(optimizer)
    shown = []
    for seed, factor in enumerate((math.inf, math.inf, 1.0)):
        losses = criterion(**linear_batch(seed))
        shown.append(losses["momentum"].item())
        scaler.scale(losses["loss"] * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert shown == pytest.approx([0.99**4] * 3)


@pytest.mark.parametrize("fused", [False, True])
def test_pairs_of_a_step_that_a_scaler_leaves_out_are_told_by_the_guard(fused: bool) -> None:
    config = MocoAtcConfig(queue_size=8, momentum=0.99, momentum_per="pair")
    criterion = MocoAtc(LinearModel(), config).train()
    optimizer = optimizer_of(criterion, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    guard = FiniteGuard(optimizer, criterion)
    criterion.attach(optimizer)
    shown = []
    for seed, factor in enumerate((math.inf, math.inf, 1.0)):
        batch = linear_batch(seed)
        losses = criterion(**batch)
        guard.watch(losses["loss"], batch["clip_ids"])
        shown.append(losses["momentum"].item())
        scaler.scale(losses["loss"] * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        guard.check_skipped_step()
        optimizer.zero_grad()
    assert shown == pytest.approx([0.99**4] * 3)


def test_a_step_that_the_guard_leaves_out_is_none(criterion) -> None:
    optimizer = optimizer_of(criterion)
    guard = FiniteGuard(optimizer, criterion, max_skipped=1, warn=lambda text: None)
    criterion.attach(optimizer)
    counts = []
    for seed in range(3):
        batch = linear_batch(seed)
        if seed == 1:
            batch["audio"]["x"][0, 0] = math.nan
        before = average(criterion).clone()
        loss = criterion(**batch)["loss"]
        guard.watch(loss, batch["clip_ids"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        counts.append(int(criterion.num_steps))
        assert torch.equal(average(criterion), before) == (seed == 1)
    assert counts == [1, 1, 2]


def test_after_a_step_left_out_a_resumed_loop_draws_the_same_negatives() -> None:
    whole, resumed = (
        MocoAtcAtm(LinearModel(), MocoAtcAtmConfig(atm_start=0, queue_size=8)).train()
        for _ in range(2)
    )
    optimizer = SGD(whole.parameters(), lr=0.1)
    guard = FiniteGuard(optimizer, whole, max_skipped=1, warn=lambda text: None)
    whole.attach(optimizer)
    batch = linear_batch(1)
    batch["audio"]["x"][0, 0] = math.nan
    loss = whole(**batch)["loss"]
    guard.watch(loss, batch["clip_ids"])
    loss.backward()
    optimizer.step()
    resumed.load_state_dict(whole.state_dict())
    for seed in range(2, 8):
        one, other = whole(**linear_batch(seed)), resumed(**linear_batch(seed))
        assert torch.equal(one["loss_atm"], other["loss_atm"])


def test_copies_and_pickles_are_attached_to_nothing(criterion) -> None:
    optimizer = optimizer_of(criterion)
    criterion.attach(optimizer)
    step(criterion, optimizer)
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        own = optimizer_of(twin)
        step(twin, own)
        assert int(twin.num_steps) == 1
        with pytest.warns(UserWarning, match=TOLD):
            step(twin, own)
        twin.attach(own)
    copy.deepcopy(optimizer)
    step(criterion, optimizer)
    assert int(criterion.num_steps) == 2


def test_a_compiled_criterion_is_watched_too() -> None:
    criterion = MocoAtc(LinearModel(), MocoAtcConfig(queue_size=0))
    optimizer = optimizer_of(criterion)
    compiled = torch.compile(criterion, backend="eager")
    with pytest.warns(UserWarning, match=TOLD):
        for _ in range(3):
            step(compiled, optimizer)
