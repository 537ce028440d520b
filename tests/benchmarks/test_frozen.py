from __future__ import annotations

import pytest
import torch

from benchmarks.frozen import rows
from benchmarks.harness import Machine


@pytest.mark.slow
def test_it_runs_in_small() -> None:
    machine = Machine(torch.device("cpu"), "a machine", {"float32": 1e11}, 1e10)
    found = list(rows(machine, tiny=True))
    names = [row.name for row in found]
    for words in (
        "1 layer frozen",
        "both encoders frozen",
        "pooled, with reading",
        "attention pooling",
    ):
        assert any(words in name for name in names), words
    assert all(row.ours > 0 and row.baseline > 0 for row in found)
    memory = {row.name: row.ours for row in found if row.unit == "MiB"}
    assert len(memory) >= 2
