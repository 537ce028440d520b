"""How many processes train a fine-tuning together."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from finetune_world import prepared

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.finetuning.loops import run_processes
from atr_moco_plugin.finetuning.saved_plan import PLAN_FILE

ALONE = {"common": {"cluster": "none"}}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(importlib.util.find_spec("fairseq2") is None, reason="needs fairseq2")
@pytest.mark.parametrize(("changes", "processes"), [({}, 2), ({"common__cluster": "none"}, 1)])
def test_the_plan_is_made_for_the_tasks_of_srun(
    changes: dict[str, Any], processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made for one process, of which there were as many as tasks."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert prepared(tmp_path, loop="fairseq2", **changes).processes == processes
    assert json.loads((tmp_path / PLAN_FILE).read_text())["facts"]["processes"] == processes


@pytest.mark.parametrize("loop", ["fairseq2", "transformers"])
def test_a_run_of_its_own_in_each_task_is_told_how(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited ten minutes for the plan of another process."""
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(InputError, match="set RANK=0 and WORLD_SIZE=1"):
        run_processes(loop, ALONE)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run_processes(loop, {}) == 1
