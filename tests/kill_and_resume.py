"""Kill a run again and again at random moments, and compare what it ends with.

As a script it does so in full (``python tests/kill_and_resume.py --help``); the test does it
in small. Moments lie anywhere in the time that the uninterrupted run takes, so that kills fall into
starting, steps, the writing of checkpoints and evaluations alike.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from conftest import TINY_TOY_RECIPE

from atr_moco_plugin.hosts.fairseq2.cli import run_recipe
from atr_moco_plugin.recipes.toy import ToyRecipeConfig

OPTIONS = [
    *TINY_TOY_RECIPE,
    # Dropout, random crops, a queue that wraps, several epochs: all that could come out otherwise.
    "model.config_overrides.audio.config.dropout=0.1",
    "model.config_overrides.text.config.hidden_dropout_prob=0.1",
    "dataset.augment.gain_db=6.0",
    "criterion.config.queue_size=40",
    "criterion.config.queue_warmup_steps=3",
    "criterion.config.alpha_warmup_steps=8",
    "regime.validate_every_n_steps=4",
    "regime.checkpoint_every_n_steps=2",
    "regime.keep_last_n_checkpoints=2",
]

Start = Callable[[Path, list[str]], "Running"]


class Running:
    """A run in processes of its own, all of one process group."""

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes], out: Path) -> None:
        self._process = process
        self.pid = process.pid or 0
        self._out = out

    def wait(self, seconds: float) -> int | None:
        """The exit status, None where it still runs after that time."""
        if isinstance(self._process, BaseProcess):
            self._process.join(seconds)
            return self._process.exitcode
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill the group at once, and every process that has the run's folder among its arguments:
        torchrun gives each of its processes a group of its own."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # not yet a group of its own
            os.kill(self.pid, signal.SIGKILL)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self._out) in arguments and int(entry.name) != os.getpid():
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.wait(60)


def fork(
    out: Path,
    options: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    file_limit: int | None = None,
) -> Running:
    """Start a run in the fork of a process that has imported all it needs and has no threads: after
    a fork of one that has, OpenMP waits for them forever. ``environment`` has variables of its own,
    and no file may grow above ``file_limit`` bytes."""
    arguments = (out, options, environment or {}, file_limit)
    process = _fork_server().Process(target=_run, args=arguments)
    process.start()
    return Running(process, out)


@functools.cache
def _fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "atr_moco_plugin.hosts.fairseq2.training.recipe"])
    # Started now, so that what it imports is no part of the time that a run takes.
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def _run(
    out: Path, options: list[str], environment: Mapping[str, str], file_limit: int | None
) -> None:
    os.setsid()
    os.environ.update(environment)
    torch.set_num_threads(1)
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = ["recipe", str(out), "--no-rich", "--config", *options]
    run_recipe(ToyRecipeConfig)


def torchrun(processes: int) -> Start:
    """Start a run on several processes."""

    def start(out: Path, options: list[str]) -> Running:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={processes}", "-m", "atr_moco_plugin.recipes.toy", str(out),
            "--no-rich", "--config", *options,
        ]  # fmt: skip
        with out.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return Running(process, out)

    return start


def run_to_the_end(start: Start, out: Path, options: list[str], timeout: float = 600) -> float:
    """Run without a kill; the seconds it took."""
    running = start(out, options)
    begin = time.monotonic()
    status = running.wait(timeout)
    if status is None:
        running.kill()
    check_end(status, out)
    return time.monotonic() - begin


def check_end(status: int | None, out: Path) -> None:
    """Raise what a run logged, where it has not come to its end."""
    if status != 0:
        log = out.with_suffix(".log").read_text()
        errors = [line for line in log.splitlines() if " ERROR: " in line]
        raise AssertionError("\n".join([f"exit status {status}", *errors, log[-3000:]]))


def kill_and_resume(
    start: Start, out: Path, options: list[str], kills: int, seconds: float, seed: int
) -> int:
    """Start the same command over and over, killing it at random moments, and let it end then.

    Args:
        start: starts the run.
        out: its folder.
        options: its configuration.
        kills: how often it is killed.
        seconds: what the uninterrupted run takes.
        seed: of the moments.

    Returns:
        How many of the kills fell between its first checkpoint and its end.

    Raises:
        AssertionError: with what it logged, where a start ends in an error.
    """
    moments, resumed, done = random.Random(seed), 0, 0
    while done < kills:
        running = start(out, options)
        status = running.wait(moments.uniform(0, seconds))
        if status is None:
            running.kill()
            done += 1
            resumed += bool(list((out / "checkpoints").glob("step_*")))
        else:
            # It came to its end before the moment: begin the whole run again.
            check_end(status, out)
            shutil.rmtree(out)
    run_to_the_end(start, out, options)
    return resumed


def differences(a: Path, b: Path) -> list[str]:
    """What two runs ended with that is not equal to the last bit; times are left out."""
    found = []
    steps = [sorted(x.name for x in (run / "checkpoints").glob("step_*")) for run in (a, b)]
    if steps[0] != steps[1]:
        return [f"checkpoints {steps[0]} and {steps[1]}"]
    for name in steps[0]:
        folder = a / "checkpoints" / name
        for file in sorted(folder.rglob("*.pt")):
            part = file.relative_to(a)
            # Both files were written by this script just now.
            states = [_load(run / part) for run in (a, b)]
            found += [f"{part}: {path}" for path in _unequal("", *states)]
    for name in ("rank.jsonl", "retrieval.json", "config.yaml"):
        if _text(a / name, a) != _text(b / name, b):
            found.append(name)
    for name in ("train", "valid"):
        records = [_records(run / "metrics" / f"{name}.jsonl") for run in (a, b)]
        found += [f"metrics/{name}.jsonl: {x}" for x in _unequal("", *records)]
    return found


def _load(file: Path) -> Any:
    from atr_moco_plugin.io.checkpoints import problem_with

    assert problem_with(file) is None, file
    return torch.load(file, weights_only=True)


def _text(file: Path, run: Path) -> str:
    # A criterion without queues writes no rank.jsonl.
    return file.read_text().replace(str(run), "RUN") if file.exists() else ""


def _records(file: Path) -> list[dict[str, Any]]:
    measured = ("time", "seconds", "per second", "memory", "/s", "wall")
    return [
        {k: v for k, v in json.loads(line).items() if not any(x in k.lower() for x in measured)}
        for line in file.read_text().splitlines()
    ]


def _unequal(path: str, a: Any, b: Any) -> list[str]:
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: keys"]
        return [x for k in a if k != "_base_wall_time" for x in _unequal(f"{path}.{k}", a[k], b[k])]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: length"]
        return [
            x
            for i, pair in enumerate(zip(a, b, strict=True))
            for x in _unequal(f"{path}[{i}]", *pair)
        ]
    return [] if a == b else [f"{path}: {a!r} and {b!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", nargs="*", default=[], help="more options of the toy recipe")
    arguments = parser.parse_args()
    start = fork if arguments.processes == 1 else torchrun(arguments.processes)
    options = [*OPTIONS, f"regime.num_steps={arguments.steps}", *arguments.config]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        seconds = run_to_the_end(start, whole, options)
        print(f"The uninterrupted run took {seconds:.1f} s.")
        resumed = kill_and_resume(start, killed, options, arguments.kills, seconds, arguments.seed)
        found = differences(whole, killed)
    print(f"{arguments.kills} kills, {resumed} of them after the first checkpoint.")
    if found:
        sys.exit(f"Not equal: {', '.join(found)}")
    print("Everything that the killed run ended with is equal, to the last bit.")


if __name__ == "__main__":
    main()
