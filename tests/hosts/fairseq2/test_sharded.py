"""Two processes under torchrun, with fairseq2's two kinds of data parallelism."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("fairseq2") is None:
    pytest.skip("fairseq2 is not installed", allow_module_level=True)

STEPS = 20
OPTIONS = [
    f"regime.num_steps={STEPS}",
    f"regime.validate_every_n_steps={STEPS}",
    f"regime.checkpoint_every_n_steps={STEPS}",
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
    # Three batches of clips: one process has two of them and the other one.
    "evaluation.batch_size=2",
    "evaluation.rerank_while_training=true",
]


def run(tiny: list[str], out: Path, *config: str) -> str:
    """What a run on two processes wrote to its standard outputs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    recipe = ["-m", "atr_moco_plugin.recipes.toy", str(out), "--no-rich", "--config", *tiny]
    result = subprocess.run(
        [*command, *recipe, *config], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count_in_queue(out: Path, step: int) -> int:
    file = min((out / "checkpoints" / f"step_{step}" / "model").rglob("*.pt"))
    return int(torch.load(file, weights_only=True)["audio_queue.position"][0])


@pytest.fixture(scope="module")
def ddp(tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("ddp")
    return out, run(tiny_options, out, *OPTIONS)


@pytest.fixture(scope="module")
def fsdp(tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("fsdp")
    return out, run(tiny_options, out, *OPTIONS, "trainer.data_parallelism=fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_and_evaluate(kind: str, request, tmp_path: Path) -> None:
    out, written = request.getfixturevalue(kind)
    result = json.loads((out / "retrieval.json").read_text())
    assert result["criterion"] == "moco_atc_atm" and "failed" not in result
    assert written.count("Retrieval on toy test") == 1
    # Both ranks' batches of 8, twice in each of 20 steps, have gone through the queue.
    assert count_in_queue(out, STEPS) == 40
    # One process finds the same to the last bit, of the checkpoint put together from its shards.
    for split in ("valid", "test"):
        expected = evaluated(out, tmp_path / split, f"split={split}")
        for name in ("dual", "rerank", "chance", "rank"):
            assert result["splits"][split][name] == expected[name], (split, name)
    (record,) = lines(out / "metrics" / "valid.jsonl")
    figures = result["splits"]["valid"]
    assert record["Step"] == STEPS
    for name in ("R-sum", "A2T R@1", "T2A R@5"):
        key = name.lower().replace(" r@", "_r").replace("r-sum", "r_sum")
        assert record[name] == figures["dual"][key], name
        assert record[f"Re-ranked {name}"] == figures["reranked"][key], name


def evaluated(run: Path, out: Path, *config: str) -> dict:
    """What the evaluation recipe finds on one process."""
    code = "from atr_moco_plugin.hosts.fairseq2.cli import run_evaluation; run_evaluation()"
    options = [f"run={run}", *config, "rerank_k=[3]", "batch_size=2", "trec_depth=0"]
    command = [sys.executable, "-c", code, str(out), "--no-rich", "--config", *options]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (figures,) = json.loads((out / "retrieval.json").read_text())["splits"].values()
    return figures


@pytest.mark.slow
def test_two_processes_train_without_the_matching_head(tiny_options, tmp_path: Path) -> None:
    others = [x for x in tiny_options if not x.startswith("criterion.")]
    written = run(others, tmp_path, "criterion=moco_atc")
    assert json.loads((tmp_path / "retrieval.json").read_text())["criterion"] == "moco_atc"
    assert "Retrieval on toy test" in written
    # At each of four steps; an epoch has one step of 16 in 30 clips.
    assert count_in_queue(tmp_path, 4) == 4 * 16


@pytest.mark.slow
def test_fsdp_trains_what_ddp_trains(ddp: tuple[Path, str], fsdp: tuple[Path, str]) -> None:
    expected, found = (lines(out / "metrics" / "train.jsonl") for out in (ddp[0], fsdp[0]))
    assert [record["Step"] for record in expected] == list(range(1, STEPS + 1))
    for one, other in zip(expected, found, strict=True):
        for name in ("Loss", "ATC Loss", "ATM Loss", "ATM Accuracy", "Temperature", "Queue Fill"):
            assert other[name] == pytest.approx(one[name], abs=1e-5), (name, one["Step"])
        # Of the whole model, and before clipping.
        norm = "Gradient Norm"
        assert other[norm] == pytest.approx(one[norm], rel=1e-4), one["Step"]
    assert expected[-1]["Queue Fill"] == 1
    assert abs(expected[-1]["Loss"] - expected[0]["Loss"]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_two_processes_begin_the_matching_loss(tiny_options, tmp_path: Path, wrapper: str) -> None:
    options = ("criterion.config.atm_start=2", f"trainer.data_parallelism={wrapper}")
    run(tiny_options, tmp_path, *options)
    records = (tmp_path / "metrics" / "train.jsonl").read_text().splitlines()
    assert ["ATM Loss" in record for record in records] == [False, False, True, True]
