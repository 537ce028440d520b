"""Every benchmark runs, at sizes that take no time, and its two ways agree."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import Machine, Row, table


@pytest.fixture(scope="module")
def machine() -> Machine:
    rates = {"float32": 1e11, "float64": 5e10}
    return Machine(torch.device("cpu"), "a machine", rates, 1e10)


@pytest.mark.parametrize("module", BENCHMARKS, ids=lambda module: module.__name__)
def test_every_benchmark_runs_and_agrees_with_its_baseline(module, machine) -> None:
    rows = list(module.rows(machine, tiny=True))
    assert rows
    for row in rows:
        assert row.ours > 0 and row.baseline > 0
        assert row.error is None or row.error < 1e-3, (row.name, row.error)
    assert len(table(rows).splitlines()) == len(rows) + 2


def test_a_ratio_is_a_speedup_or_a_cost() -> None:
    speedup = Row("x", "y", 1.0, 3.0, None, "", None, "", target=2.0)
    assert speedup.ratio == 3.0 and speedup.met
    cost = Row("x", "y", 3.0, 2.0, None, "", None, "", target=1.4, cost=True)
    assert cost.ratio == 1.5 and not cost.met


def test_a_floor_is_the_slower_of_arithmetic_and_memory(machine) -> None:
    assert machine.floor(flops=1e11, moved=1e9) == pytest.approx(1.0)
    assert machine.floor(flops=1e11, moved=1e11) == pytest.approx(10.0)
    assert machine.floor(flops=1e11, dtype="float64") == pytest.approx(2.0)
