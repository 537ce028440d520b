"""Processes of a test that talk through gloo: each runs the test's own file as a script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

TIMEOUT = 60


@contextmanager
def process_group(rank: int, world: int, folder: Path) -> Iterator[None]:
    """In such a process: its group, found through a file in a folder that all of them share."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / f'rendezvous_of_{world}'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT),
    )
    yield
    dist.destroy_process_group()


def run_on_ranks(script: str, world: int, folder: Path) -> None:
    """Run ``script RANK FOLDER`` in as many processes at once, all of which have to succeed. They
    import what is beside this file by its name, as pytest does."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=2 * TIMEOUT)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)
    finally:
        for process in processes:
            process.kill()
