"""Faults planted in a loop of one's own: the run stops, or the step changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from atr_moco_plugin.criterion import Atc, AtcConfig, MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.safety import FiniteGuard, NonFiniteError
from atr_moco_plugin.safety.message import NAMED, listed

Batch = dict[str, object]


class Loop:
    """The loop of docs/any_loop.md."""

    def __init__(self, criterion: Atc, max_skipped: int = 0, clip: float | None = None) -> None:
        self.criterion, self.clip = criterion.train(), clip
        self.optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-3)
        self.warnings: list[str] = []
        self.guard = FiniteGuard(
            self.optimizer, criterion, max_skipped=max_skipped, warn=self.warnings.append
        )

    def step(self, *batches: Batch) -> None:
        for batch in batches:
            loss = self.criterion(**batch)["loss"]
            self.guard.watch(loss, batch["clip_ids"])
            (loss / len(batches)).backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.criterion.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.criterion.on_optimizer_step()

    def weights(self) -> dict[str, torch.Tensor]:
        model = {name: x.detach().clone() for name, x in self.criterion.named_parameters()}
        moments = {
            f"{i}.{name}": torch.as_tensor(x).clone()
            for i, state in self.optimizer.state_dict()["state"].items()
            for name, x in state.items()
        }
        return {k: x for k, x in (model | moments).items() if "_m." not in k}

    def assert_finite(self) -> None:
        assert all(bool(x.isfinite().all()) for x in self.criterion.state_dict().values())


@pytest.fixture
def criterion(tiny_model) -> MocoAtcAtm:
    return MocoAtcAtm(tiny_model(), MocoAtcAtmConfig(atm_start=0, queue_size=10, momentum=0.5))


def broken(batch: Batch, row: int, value: float = math.nan) -> Batch:
    """A clip that came through a loader that does not look at its samples."""
    batch["audio"]["waveforms"][row, 100] = value
    return batch


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_broken_clip_stops_the_run_and_is_named(
    criterion, tiny_batch, value: float, clip: float | None
) -> None:
    loop = Loop(criterion, clip=clip)
    loop.step(tiny_batch(seed=1))
    before, batch = loop.weights(), broken(tiny_batch(seed=2), 2, value)
    ids = [str(i) for i in batch["clip_ids"].tolist()]
    with pytest.raises(NonFiniteError) as caught:
        loop.step(batch)
    message = str(caught.value)
    assert message.startswith("The loss of step 2 is nan, in a batch of the clips ")
    assert all(i in message for i in ids)
    assert f"NaN or infinite are the audio embeddings of {ids[2]}." in message
    assert "text embeddings" not in message
    assert "last checkpoint is sound" in message and "leave them out" in message
    assert all(torch.equal(x, before[name]) for name, x in loop.weights().items())
    loop.assert_finite()


def test_a_step_left_out_changes_no_weight_and_the_run_goes_on(criterion, tiny_batch) -> None:
    loop = Loop(criterion, max_skipped=2)
    loop.step(tiny_batch(seed=1))
    for seed in (2, 3):
        before = loop.weights()
        loop.step(broken(tiny_batch(seed=seed), 0))
        assert all(torch.equal(x, before[name]) for name, x in loop.weights().items())
        loop.step(tiny_batch(seed=10 + seed))
        assert not all(torch.equal(x, before[name]) for name, x in loop.weights().items())
        loop.assert_finite()
    assert (loop.guard.skipped, int(criterion.num_steps)) == (2, 5)
    for i, text in enumerate(loop.warnings, start=1):
        assert text.endswith(f"The step is left out, number {i} of the 2 that may be.")
    with pytest.raises(NonFiniteError, match="The loss of step 6 is nan"):
        loop.step(broken(tiny_batch(seed=4), 0))
    loop.assert_finite()


def test_a_broken_gradient_of_a_finite_loss(criterion, tiny_batch) -> None:
    loop = Loop(criterion, max_skipped=1)
    weight = criterion.model.text.projection.weight
    weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(1), math.inf))
    before = loop.weights()
    loop.step(tiny_batch())
    assert all(torch.equal(x, before[name]) for name, x in loop.weights().items())
    with pytest.raises(NonFiniteError) as caught:
        loop.step(tiny_batch())
    assert (
        "The loss of step 2 is finite, but the gradient of model.text.projection.weight is not."
        in str(caught.value)
    )


@pytest.mark.parametrize(
    "part", ["model.audio.projection.weight", "audio_m.module.projection.bias"]
)
def test_a_broken_weight_stops_the_run_however_many_steps_may_be_left_out(
    criterion, tiny_batch, part: str
) -> None:
    loop = Loop(criterion, max_skipped=9)
    with torch.no_grad():
        criterion.get_parameter(part).view(-1)[3] = math.nan
    with pytest.raises(NonFiniteError) as caught:
        loop.step(tiny_batch())
    assert f"NaN or infinite before the step was made: {part}." in str(caught.value)
    assert "a checkpoint that was saved before" in str(caught.value)


def test_a_broken_weight_of_a_recomputed_layer_has_its_name_in_a_checkpoint(
    criterion, tiny_batch
) -> None:
    layers = criterion.model.audio.encoder.encoder.layers
    layers[0] = checkpoint_wrapper(layers[0])
    loop = Loop(criterion)
    with torch.no_grad():
        layers[0].fc1.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"encoder\.layers\.0\.fc1\.weight"):
        loop.step(tiny_batch())


def test_a_broken_queue_stops_the_run(criterion, tiny_batch) -> None:
    loop = Loop(criterion, max_skipped=9)
    loop.step(tiny_batch(seed=1))
    criterion.text_queue.embeddings[1, 0] = math.nan
    with pytest.raises(NonFiniteError, match="before the step was made: text_queue.embeddings"):
        loop.step(tiny_batch(seed=2))


def test_of_accumulated_batches_the_broken_one_is_named(criterion, tiny_batch) -> None:
    loop = Loop(criterion)
    first, second, third = (tiny_batch(seed=seed) for seed in (1, 2, 3))
    with pytest.raises(NonFiniteError) as caught:
        loop.step(first, broken(second, 1), third)
    told = [str(int(batch["clip_ids"][0])) in str(caught.value) for batch in (first, second, third)]
    assert told == [False, True, False]
    assert f"audio embeddings of {int(second['clip_ids'][1])}." in str(caught.value)


def test_without_queues_the_batch_is_named(tiny_model, tiny_batch) -> None:
    loop = Loop(Atc(tiny_model(), AtcConfig()))
    batch = broken(tiny_batch(b=NAMED + 3), 1)
    with pytest.raises(NonFiniteError) as caught:
        loop.step(batch)
    assert str(int(batch["clip_ids"][NAMED - 1])) in str(caught.value)
    assert "and 3 more. The last checkpoint" in str(caught.value)


def test_clips_have_the_names_a_user_knows(criterion, tiny_batch) -> None:
    batch = broken(tiny_batch(), 1)
    asked = []

    def names(ids):
        asked.append(sorted(ids))
        return {i: f"'{'abcd'[batch['clip_ids'].tolist().index(i)]}.wav'" for i in ids}

    criterion.train()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    guard = FiniteGuard(
        optimizer, criterion, name_clips=names, last_good=lambda sound: f"Sound: {sound}."
    )
    loss = criterion(**batch)["loss"]
    guard.watch(loss, batch["clip_ids"])
    loss.backward()
    with pytest.raises(NonFiniteError) as caught:
        optimizer.step()
    assert asked == [sorted(batch["clip_ids"].tolist())]
    for words in ("'a.wav', 'b.wav', 'c.wav', 'd.wav'.", "embeddings of 'b.wav'.", "Sound: True."):
        assert words in str(caught.value)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_of_scaled_gradients_is_the_scalers_business(
    criterion, tiny_batch, fused: bool
) -> None:
    criterion.train()
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=1e-3, fused=fused)
    guard = FiniteGuard(optimizer, criterion)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step(batch: Batch) -> None:
        loss = criterion(**batch)["loss"]
        guard.watch(loss, batch["clip_ids"])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        guard.check_skipped_step()

    for _ in range(2):
        step(tiny_batch())
    assert scaler.get_scale() < 2.0**127 and guard.skipped == 0
    with pytest.raises(NonFiniteError, match="The loss of step"):
        step(broken(tiny_batch(), 0))


def test_running_statistics_are_as_before_a_step_that_is_left_out() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = FiniteGuard(optimizer, model, max_skipped=1, warn=lambda text: None)

    def step(x: torch.Tensor) -> None:
        loss = model(x).square().mean()
        guard.watch(loss, torch.arange(len(x)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(torch.randn(8, 3))
    mean = model[0].running_mean.clone()
    step(torch.full((8, 3), math.nan))
    assert torch.equal(model[0].running_mean, mean) and guard.skipped == 1
    step(torch.randn(8, 3))
    assert all(bool(x.isfinite().all()) for x in model.state_dict().values())


def test_several_optimizers_share_a_verdict() -> None:
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model]
    guard = FiniteGuard(optimizers, model, max_skipped=1, warn=lambda text: None)
    before = [p.detach().clone() for p in model.parameters()]
    loss = model[0](torch.ones(1, 2)).sum() + model[1](torch.full((1, 2), math.nan)).sum()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=False))
    assert (guard.skipped, guard.step) == (1, 2)


def test_a_closure_is_refused_and_a_closed_guard_is_not_there() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = FiniteGuard(optimizer, model)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
    guard.close()
    optimizer.step(lambda: 0.0)


def test_a_guard_that_is_closed_after_a_step_it_left_out_is_not_there(
    criterion, tiny_batch
) -> None:
    """Every later step counted as left out: the momentum copies and the warm-up stood still."""
    criterion.train()
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion.attach(optimizer)
    guard = FiniteGuard(optimizer, criterion, max_skipped=1, warn=lambda text: None)
    counted = []
    for batch in (tiny_batch(seed=1), broken(tiny_batch(seed=2), 0), tiny_batch(seed=3)):
        loss = criterion(**batch)["loss"]
        if len(counted) < 2:
            guard.watch(loss, batch["clip_ids"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        counted.append(int(criterion.num_steps))
        if len(counted) == 2:
            guard.close()
    assert (counted, guard.skipped) == ([1, 1, 2], 1)


def test_names_are_few() -> None:
    names = [str(i) for i in range(NAMED)]
    assert listed(names, NAMED) == ", ".join(names)
    assert listed([*names, "x", "y"], NAMED).endswith(f"{NAMED - 1} and 2 more")
    assert listed(names, NAMED, of=100).endswith(f"and {100 - NAMED} more")
