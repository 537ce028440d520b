"""One process of a run dies: the others end too, nothing is lost, and the run goes on as if not."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("fairseq2")

from kill_and_resume import OPTIONS, differences, fork, torchrun

from atr_moco_plugin.hosts.fairseq2.runs.resume import problem_with_checkpoint
from atr_moco_plugin.io.checkpoints import step_folders

# Each process has 16 of 35 pairs, so two steps are an epoch. They are so many that the run does not
# end while this process, on a busy machine, is not looking.
STEPS = [
    *OPTIONS,
    "regime.num_steps=40",
    "dataset.config_overrides.num_train=35",
    "evaluation.test_split=null",
]
BOUND = 60.0
"""Seconds in which the whole job has to end; a collective that waits would take minutes."""


def process_of_rank(rank: int, out: Path) -> int | None:
    """The process that trains as this rank of a run, None where it has not started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(out) in arguments and f"RANK={rank}".encode() in environment:
            return int(entry.name)
    return None


def run_to_the_end(out: Path) -> None:
    """Run on two processes without a kill. Forked, since torchrun has both import everything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    job |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [
        fork(out, STEPS, environment={**job, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    statuses = [running.wait(5 * BOUND) for running in ranks]
    for running, status in zip(ranks, statuses, strict=True):
        if status is None:
            running.kill()
    assert statuses == [0, 0], out.with_suffix(".log").read_text()[-3000:]


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_and_the_run_goes_on(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(whole)

    running = torchrun(2)(out, STEPS)
    end = time.monotonic() + 2 * BOUND
    # Any of them: the first ones are soon gone again.
    while not step_folders(out / "checkpoints", "step_"):
        status = running.wait(0.002)
        assert status is None and time.monotonic() < end, out.with_suffix(".log").read_text()
    victim = process_of_rank(1, out)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)

    status = running.wait(BOUND)
    if status is None:
        running.kill()
    assert status is not None and status != 0
    # The job is over with all its processes, and what it had saved is sound.
    assert process_of_rank(0, out) is None
    newest = max((out / "checkpoints").glob("step_*"), key=lambda x: int(x.name.split("_")[1]))
    assert problem_with_checkpoint(newest) is None
    assert not (out / "retrieval.json").exists()

    run_to_the_end(out)
    assert differences(whole, out) == []
