"""Two processes with frozen parts do what one does: under DDP the copies share weights, under FSDP2
they have shards of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

sys.path.insert(0, str(Path(__file__).parent))
import frozen
from training import WRAPPERS, put_together

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("frozen")
    result = subprocess.run(
        [sys.executable, frozen.__file__, str(folder)], stderr=subprocess.PIPE, text=True,
        timeout=600, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(2)]


@pytest.mark.parametrize("freeze", frozen.KINDS)
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp", "fsdp_stack"])
def test_two_processes_train_as_one(ranks, wrapper: str, freeze: str) -> None:
    if wrapper not in ("ddp", *WRAPPERS) and "fsdp" not in WRAPPERS:
        pytest.skip("FSDP is applied as fairseq2 does it, and fairseq2 is not installed")
    expected = frozen.train(frozen.build(freeze))
    found = [rank[f"{wrapper}.{freeze}"] for rank in ranks]
    losses = torch.stack([x["losses"] for x in found]).mean(dim=0)
    assert_close(losses, expected["losses"], atol=1e-5, rtol=1e-5)
    states = [{k: v for k, v in x["state"].items() if k in expected["state"]} for x in found]
    for state in put_together(states, expected["state"]):
        assert state.keys() == expected["state"].keys()
        for key, value in expected["state"].items():
            assert_close(state[key], value, atol=1e-5, rtol=1e-5, msg=lambda m, key=key: key + m)
    shared = {k for x in found for k in x["state"] if k not in expected["state"]}
    assert bool(shared) == (wrapper != "ddp")
    assert all("_m.module.encoder." in name for name in shared)
