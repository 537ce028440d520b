"""``queue_warmup_steps: auto``: when the queue enters the loss, from the queue itself."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from table_model import TableModel, table_batch
from torch import Tensor
from torch.optim import SGD

from atr_moco_plugin.criterion import MocoAtc, MocoAtcConfig
from atr_moco_plugin.criterion.queue_start import steady_rows
from atr_moco_plugin.queue import EmbeddingQueue

OPTIONS: dict[str, Any] = {"queue_size": 40, "queue_warmup_steps": "auto", "momentum": 0.9}


def queue_of(rows: Tensor, size: int) -> EmbeddingQueue:
    queue = EmbeddingQueue(size, rows.size(1))
    ids = torch.arange(len(rows))
    queue.enqueue(torch.nn.functional.normalize(rows, dim=1), ids, ids)
    return queue


def drifting(n: int, drift: float, over: int, seed: int) -> Tensor:
    """Rows whose oldest ones stand apart: they have moved over the last ``over`` rows alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 8, generator=generator)
    rows[:, 0] += drift * (torch.arange(n) - (n - over)).clamp(min=0) / over
    return rows


@pytest.mark.parametrize("size", [128, 200])
def test_rows_without_drift_are_all_steady(size: int) -> None:
    queues = {name: queue_of(drifting(128, 0, 1, seed), size) for seed, name in enumerate("at")}
    assert steady_rows(queues, least=16, most=0.05) == size  # and what comes is in too, until the next look


def test_the_youngest_rows_are_steady_where_the_drift_has_ended() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(64, 8, generator=generator) + torch.linspace(8, 0, 64)[:, None]
    moved = queue_of(torch.cat([old, drifting(64, 0, 1, 2)]), 128)
    still = queue_of(drifting(128, 0, 1, 3), 128)
    assert steady_rows({"audio": moved, "text": still}, least=16, most=0.05) == 64
    assert steady_rows({"audio": still, "text": moved}, least=64, most=0.05) == 64
    assert steady_rows({"audio": still, "text": moved}, least=65, most=0.05) == 0


def test_no_row_is_steady_in_a_drift_that_goes_on() -> None:
    queues = {"audio": queue_of(drifting(128, 20, 128, 0), 128)}
    assert steady_rows(queues, least=32, most=0.05) == 0


def test_too_few_rows_are_not_judged() -> None:
    assert steady_rows({"audio": queue_of(drifting(20, 0, 1, 0), 128)}, least=40, most=0.05) == 0
    assert steady_rows({"audio": EmbeddingQueue(0, 4)}, least=40, most=0.05) == 0


def run(
    criterion: MocoAtc, optimizer: SGD, steps: range, moved: float = 0.0
) -> list[tuple[float, int]]:
    """Loss and rows of each step; ``moved`` is added to every item's embedding in a step."""
    found = []
    for step in steps:
        with torch.no_grad():
            for tower in (criterion.model.audio, criterion.model.text):
                tower.weight[:, 0] += moved
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


def test_a_queue_that_drifts_stays_out_and_enters_when_it_has_come_to_rest() -> None:
    criterion, optimizer = make()
    moving = run(criterion, optimizer, range(40), moved=0.5)
    assert {n for _, n in moving} == {0}
    still = [n for _, n in run(criterion, optimizer, range(40, 160))]
    assert still[0] == 0 and still[-1] == 40
    again = [n for _, n in run(criterion, optimizer, range(160, 190), moved=-3.0)]
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
        run(criterion, optimizer, range(49), moved=0.5)
    with pytest.warns(UserWarning, match="out of the loss after 50 of 100 steps") as found:
        run(criterion, optimizer, range(49, 100), moved=0.5)
    assert len(found) == 1


def test_older_checkpoints_load(tiny_model: Any) -> None:
    criterion, optimizer = make()
    run(criterion, optimizer, range(24))
    saved = criterion.state_dict()
    older = {k: v for k, v in saved.items() if k not in NEW}
    assert len(older) == len(saved) - len(NEW)
    other, _ = make(seed=3)
    other.load_state_dict(older)
    assert int(other(**table_batch(8, seed=0))["queue_rows"]) == 0
    criterion.reset_parameters()
    assert int(criterion(**table_batch(8, seed=0))["queue_rows"]) == 0


NEW = {"queue_start.rows", "momentum_factor.num_pairs"}
"""What version 1 did not save."""
