"""fairseq2's two kinds of data parallelism through the recipe: FSDP2 trains what DDP trains."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

STEPS = 20
OPTIONS = [
    f"regime.num_steps={STEPS}",
    f"regime.validate_every_n_steps={STEPS}",
    f"regime.checkpoint_every_n_steps={STEPS}",
    "evaluation.test_split=null",
    # Two steps an epoch, of two batches of 8 on each of two processes.
    "dataset.config_overrides.num_train=70",
    "trainer.grad_accumulation.num_batches=2",
    "trainer.grad_accumulation.no_sync=true",
    "trainer.max_grad_norm=1.0",
    "criterion.config.negatives=all_ranks",
    # It wraps fifteen times, and takes part from the first step on, as do the learning rates.
    "criterion.config.queue_size=40",
    "criterion.config.queue_warmup_steps=0",
    "criterion.config.alpha_warmup_steps=5",
    "lr_scheduler.config.num_warmup_steps=0",
]


def records(tiny: list[str], out: Path, data_parallelism: str) -> list[dict[str, float]]:
    """What a run on two processes recorded of its training."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(out), "--no-rich", "--config", *tiny]
    result = subprocess.run(
        [*command, *recipe, *OPTIONS, f"trainer.data_parallelism={data_parallelism}"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in (out / "metrics" / "train.jsonl").read_text().splitlines()]


def test_fsdp_trains_what_ddp_trains(tiny_options: list[str], tmp_path: Path) -> None:
    ddp, fsdp = (records(tiny_options, tmp_path / x, x) for x in ("ddp", "fsdp"))
    assert [record["Step"] for record in ddp] == list(range(1, STEPS + 1))
    for expected, found in zip(ddp, fsdp, strict=True):
        for name in ("Loss", "ATC Loss", "ATM Loss", "ATM Accuracy", "Temperature", "Queue Fill"):
            assert found[name] == pytest.approx(expected[name], abs=1e-5), (name, found["Step"])
        # Of the whole model, and before clipping.
        norm = "Gradient Norm"
        assert found[norm] == pytest.approx(expected[norm], rel=1e-4), found["Step"]
    assert ddp[-1]["Queue Fill"] == 1 and abs(ddp[-1]["Loss"] - ddp[0]["Loss"]) > 0.01
