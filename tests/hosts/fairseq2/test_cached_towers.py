"""Recipes whose frozen encoders are run once: ``dataset.cache_embeddings``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fairseq2")

from kill_and_resume import fork, run_to_the_end, torchrun

FROZEN = [
    "model.config_overrides.audio.freeze=all",
    "model.config_overrides.text.freeze=all",
    "evaluation.rerank_k=0",
    "criterion.name=moco_atc",
    "criterion.config.queue_size=8",
]


@pytest.fixture
def tiny_options(tiny_options: list[str]) -> list[str]:
    """Without an option of the matching loss, which most runs here have not."""
    return [x for x in tiny_options if "atm_" not in x]


@pytest.fixture
def run(tmp_path: Path, tiny_options: list[str]) -> Callable[..., str]:
    """Runs the toy recipe to its end; returns its log."""

    def call(name: str, *options: str) -> str:
        out = tmp_path / name
        run_to_the_end(fork, out, [*tiny_options, *FROZEN, *options])
        return out.with_suffix(".log").read_text()

    return call


def losses(out: Path) -> list[float]:
    lines = (out / "metrics" / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["Loss"] for line in lines]


def figures(out: Path) -> Any:
    return json.loads((out / "retrieval.json").read_text())


@pytest.mark.slow
def test_a_cached_run_is_the_run_of_the_towers(run: Callable[..., str], tmp_path: Path) -> None:
    # Toy clips last a second or less, so that there are no crops.
    run("plain", "dataset.max_seconds=4.0")
    cached = f"dataset.cache_embeddings={tmp_path / 'cache'}"
    log = run("cached", "dataset.max_seconds=4.0", cached)
    assert "outputs of 30 of 30 clips are written, pooled (float32)" in log
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    first, second = (figures(tmp_path / name) for name in ("plain", "cached"))
    assert first["splits"]["valid"]["dual"] == second["splits"]["valid"]["dual"]
    assert "none of them is read or encoded" in run("again", "dataset.max_seconds=4.0", cached)
    assert losses(tmp_path / "again") == losses(tmp_path / "cached")


def test_a_cached_run_goes_on_where_it_was(run: Callable[..., str], tmp_path: Path) -> None:
    cached = f"dataset.cache_embeddings={tmp_path / 'cache'}"
    run("whole", cached, "dataset.cache_crops=2")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step_4")
    (tmp_path / "stopped" / "checkpoints" / "scores" / "step_4.txt").unlink()
    run("stopped", cached, "dataset.cache_crops=2")
    assert losses(tmp_path / "stopped")[-1] == losses(tmp_path / "whole")[-1]


@pytest.mark.slow
def test_a_matching_head_trains_on_cached_tokens(run: Callable[..., str], tmp_path: Path) -> None:
    matching = [
        "criterion.name=moco_atc_atm", "criterion.config.atm_start=0", "evaluation.rerank_k=3",
        "dataset.max_seconds=4.0",
    ]  # fmt: skip
    run("plain", *matching)
    run("cached", *matching, f"dataset.cache_embeddings={tmp_path / 'cache'}")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=3e-3)
    assert "reranked" in figures(tmp_path / "cached")["splits"]["valid"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["model.config_overrides.audio.freeze=none", "model.config_overrides.text.freeze=1"],
         "none does: set `model.config_overrides.audio.freeze=all`"),
        (["dataset.augment.gain_db=3.0"], "`dataset.augment` changes what the audio encoder"),
        (["model.config_overrides.spec_augment.freq_masks=1"], "spec_augment"),
        (["trainer.data_parallelism=fsdp"], "`trainer.data_parallelism` is fsdp"),
        (["dataset.cache_crops=0"], "`cache_crops` is 0, expected 1 or more"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_cache_is_refused(
    tmp_path: Path, tiny_options: list[str], options: list[str], error: str
) -> None:
    out = tmp_path / "run"
    cache = f"dataset.cache_embeddings={tmp_path / 'cache'}"
    assert fork(out, [*tiny_options, *FROZEN, cache, *options]).wait(60) == 2
    log = out.with_suffix(".log").read_text()
    assert error in log and "Traceback" not in log and not (tmp_path / "cache").exists()


def test_crops_without_a_cache_are_refused(tmp_path: Path, tiny_options: list[str]) -> None:
    out = tmp_path / "run"
    assert fork(out, [*tiny_options, "dataset.cache_crops=4"]).wait(60) == 2
    assert "`cache_crops` is 4, but nothing is cached" in out.with_suffix(".log").read_text()


@pytest.mark.slow
def test_two_processes_write_one_cache_and_read_it(tmp_path: Path, tiny_options: list[str]) -> None:
    cache = f"dataset.cache_embeddings={tmp_path / 'cache'}"
    options = [*tiny_options, *FROZEN, cache, "dataset.max_seconds=4.0", "dataset.batch_size=4"]
    run_to_the_end(torchrun(2), tmp_path / "two", options)
    log = (tmp_path / "two.log").read_text()
    assert "outputs of 30 of 30 clips are written" in log and "Running on 2 process(es)" in log
    run_to_the_end(torchrun(2), tmp_path / "again", options)
    assert losses(tmp_path / "two") == losses(tmp_path / "again")
    assert "none of them is read or encoded" in (tmp_path / "again.log").read_text()
