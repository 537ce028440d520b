"""``queue_warmup_steps: auto``: when the queue enters the loss, from the queue itself."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from table_model import TableModel, table_batch
from torch import Tensor
from torch.optim import SGD

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.criterion.queue_start import steady_rows
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.queue import EmbeddingQueue

OPTIONS: dict[str, Any] = {"queue_size": 40, "queue_warmup_steps": "auto", "momentum": 0.5}


def queue_of(rows: Tensor, size: int) -> EmbeddingQueue:
    queue = EmbeddingQueue(size, rows.size(1))
    ids = torch.arange(len(rows))
    queue.enqueue(torch.nn.functional.normalize(rows, dim=1), ids, ids)
    return queue


def drifting(n: int, turn: float, seed: int) -> Tensor:
    """Rows around a mean that turns by an angle from the first to the last."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 8, generator=generator)
    angle = torch.linspace(0, turn, n)
    rows[:, 0] += 4 * angle.cos()
    rows[:, 1] += 4 * angle.sin()
    return rows


@pytest.mark.parametrize("size", [128, 200])
def test_rows_without_drift_are_all_steady(size: int) -> None:
    queues = {name: queue_of(drifting(128, 0, seed), size) for seed, name in enumerate("at")}
    # What comes is in too, until the next look.
    assert steady_rows(queues, least=16, most=0.05) == size


def test_the_youngest_rows_are_steady_where_the_drift_has_ended() -> None:
    moved = queue_of(torch.cat([drifting(64, -3, 1).flip(0), drifting(64, 0, 2)]), 128)
    queues = {"audio": queue_of(drifting(128, 0, 3), 128), "text": moved}
    assert [steady_rows(queues, least=n, most=0.05) for n in (16, 64, 65)] == [64, 64, 0]


def test_no_row_is_steady_in_a_drift_that_goes_on() -> None:
    queues = {"audio": queue_of(drifting(128, 6, 0), 128)}
    assert steady_rows(queues, least=32, most=0.05) == 0
    assert steady_rows(queues, least=32, most=0.9) == 128


def test_too_few_rows_are_not_judged() -> None:
    assert steady_rows({"audio": queue_of(drifting(20, 0, 0), 128)}, least=40, most=0.05) == 0
    assert steady_rows({"audio": EmbeddingQueue(0, 4)}, least=40, most=0.05) == 0


def run(
    criterion: MocoAtc, optimizer: SGD, steps: range, turn: float = 0.0
) -> list[tuple[float, int]]:
    """Loss and rows of each step, in which the mean of the embeddings turns by an angle."""
    found = []
    for step in steps:
        with torch.no_grad():
            for tower in (criterion.model.audio, criterion.model.text):
                for at, sign in ((turn * (step + 1), 4), (turn * step, -4)):
                    tower.weight[:, :2] += sign * torch.tensor([math.cos(at), math.sin(at)])
        out = criterion(**table_batch(8, seed=step))
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append((out["loss"].item(), int(out["queue_rows"])))
    return found


def make(seed: int = 0, **options: Any) -> tuple[MocoAtc, SGD]:
    criterion = MocoAtc(TableModel(seed=seed), MocoAtcConfig(**OPTIONS | options)).train()
    optimizer = SGD([p for p in criterion.parameters() if p.requires_grad], lr=1e-3)
    criterion.attach(optimizer)
    return criterion, optimizer


def test_a_queue_without_drift_enters_at_the_second_look() -> None:
    criterion, optimizer = make()
    rows = [n for _, n in run(criterion, optimizer, range(24))]
    assert rows == [0] * 20 + [40] * 4


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"momentum": 0.975}, 50),  # remembers 40 steps of 8 rows
        ({"momentum": 1 - 1 / 320, "momentum_per": "pair"}, 50),
        ({"momentum": 1.0}, 60),  # whatever, the queue is full after 50
        ({"keys": "online", "columns": "online", "alpha": 0.0, "momentum": 0.995}, 20),
    ],
)
def test_it_is_asked_about_no_less_than_the_averages_remember(options: Any, first: int) -> None:
    criterion, optimizer = make(queue_size=400, **options)
    rows = [n for _, n in run(criterion, optimizer, range(62))]
    assert rows[first - 1] == 0 and rows[first] == min(400, 8 * first)


def test_a_queue_that_drifts_stays_out_and_enters_when_it_has_come_to_rest() -> None:
    criterion, optimizer = make()
    moving = run(criterion, optimizer, range(40), turn=0.4)
    assert {n for _, n in moving} == {0}
    still = [n for _, n in run(criterion, optimizer, range(40, 160))]
    assert still[0] == 0 and still[-1] == 40
    again = [n for _, n in run(criterion, optimizer, range(160, 190), turn=0.4)]
    assert again[-1] == 0


def test_the_loss_is_that_of_the_rows_in_use() -> None:
    one, other = make(), make(queue_warmup_steps=20)
    for auto, fixed in zip(*(run(*x, range(30)) for x in (one, other)), strict=True):
        assert auto == fixed


@pytest.mark.parametrize("at", [15, 25])
def test_a_resumed_run_decides_alike(at: int) -> None:
    criterion, optimizer = make()
    run(criterion, optimizer, range(at))
    saved = copy.deepcopy((criterion.state_dict(), optimizer.state_dict()))
    expected = run(criterion, optimizer, range(at, 40))
    resumed, fresh = make(seed=5)
    resumed.load_state_dict(saved[0])
    fresh.load_state_dict(saved[1])
    assert run(resumed, fresh, range(at, 40)) == expected


def test_a_queue_that_is_out_after_half_of_the_run_is_warned_of_once() -> None:
    criterion, optimizer = make()
    criterion.total_steps = 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(criterion, optimizer, range(49), turn=0.4)
    with pytest.warns(UserWarning, match="out of the loss after 50 of 100 steps") as found:
        run(criterion, optimizer, range(49, 100), turn=0.4)
    assert len(found) == 1


def test_an_older_checkpoint_keeps_its_queue_in_the_loss_with_a_word() -> None:
    criterion, optimizer = make(queue_warmup_steps=0)
    run(criterion, optimizer, range(24))
    saved = criterion.state_dict()
    older = {k: v for k, v in saved.items() if k not in NEW}
    assert len(older) == len(saved) - len(NEW)
    other, fresh = make(seed=3)
    with pytest.warns(UserWarning, match="from before that option"):
        other.load_state_dict(older)
    assert [n for _, n in run(other, fresh, range(24, 32))] == [40] * 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(queue_warmup_steps=0)[0].load_state_dict(older)
    weights = {name: x for name, x in older.items() if name.startswith("model.")}
    other, _ = make()
    other.load_state_dict(weights, strict=False)
    assert int(other(**table_batch(8, seed=0))["queue_rows"]) == 0
    criterion, optimizer = make()
    run(criterion, optimizer, range(24))
    criterion.reset_parameters()
    assert int(criterion(**table_batch(8, seed=0))["queue_rows"]) == 0


@pytest.mark.parametrize(("warmup", "rows"), [(0, 40), (8, 40), (100, 0)])
def test_a_run_with_a_number_of_steps_goes_on_with_auto(warmup: int, rows: int) -> None:
    criterion, optimizer = make(queue_warmup_steps=warmup)
    run(criterion, optimizer, range(24))
    other, fresh = make(seed=3)
    other.load_state_dict(criterion.state_dict())
    assert [n for _, n in run(other, fresh, range(24, 30))] == [rows] * 6


def test_a_queue_of_other_data_is_judged_anew() -> None:
    criterion, optimizer = make()
    criterion.set_data("one")
    assert run(criterion, optimizer, range(24))[-1][1] == 40
    state = criterion.state_dict()
    with pytest.warns(UserWarning, match="of another data set"):
        criterion.set_data("two")
    assert [n for _, n in run(criterion, optimizer, range(24, 30))] == [0] * 6
    other, fresh = make(seed=3)
    other.set_data("three")
    with pytest.warns(UserWarning, match="of another data set"):
        other.load_state_dict(state)
    assert [n for _, n in run(other, fresh, range(24, 30))] == [0] * 6


def test_a_warm_up_that_the_run_does_not_outlast_is_warned_of_at_the_start() -> None:
    criterion, optimizer = make(queue_warmup_steps=50)
    criterion.total_steps = 50
    with pytest.warns(UserWarning, match="is 50, but the run has 50 steps: the queue") as found:
        run(criterion, optimizer, range(2))
    assert len(found) == 1
    for options, steps in (({}, 51), ({"queue_size": 0}, 9)):
        criterion, optimizer = make(queue_warmup_steps=50, **options)
        criterion.total_steps = steps
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(criterion, optimizer, range(2))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"queue_size": 7}, "queue_size"), ({"queue_size": "auto", "queue_min": 4}, "queue_min")],
)
def test_a_queue_too_short_to_tell_an_age_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"fewer than 8 rows, .* `{name}` is"):
        make(**options)
    make(queue_size=0)


NEW = {"queue_start.rows", "momentum_factor.num_pairs"}
"""What version 1 did not save."""
