"""Trains the runs of a study that are not finished, some of them side by side."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atr_moco_plugin.io.json_files import object_if_whole
from atr_moco_plugin.io.stdout import duration
from atr_moco_plugin.study.plan import OVERRIDES, RECIPE, Run, StudyConfig, check_folder, write_yaml

_POLL_SECONDS = 0.2
_LAST_LINES = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE = 10
"""Seconds that runs have to end when they are asked to."""
_PR_SET_PDEATHSIG = 1


class Ended(BaseException):
    """A signal ends the study.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result.

    Attributes:
        name: of the run.
        status: exit status of its process.
        log: what it wrote.
        last_lines: the end of that.
    """

    name: str
    status: int
    log: Path
    last_lines: tuple[str, ...]


@dataclass
class _Job:
    run: Run
    process: subprocess.Popen[bytes]
    start: float


def is_finished(folder: Path) -> bool:
    """Whether a run has its figures on every split; one that lacks some evaluates them when it is
    started again."""
    result = object_if_whole(folder / "retrieval.json")
    return bool(result) and not result.get("failed")


def train_missing(
    config: StudyConfig, runs: Sequence[Run], folder: Path, say: Callable[[str], None]
) -> list[Failure]:
    """Train the runs without a result; an interrupted one goes on from its last checkpoint.

    Args:
        config: the study.
        runs: its plan.
        folder: where each run has a folder of its name, with a log beside it.
        say: told about every run that starts or ends, with the time left.

    Returns:
        The runs that failed; the others were trained nevertheless.

    Raises:
        InputError: when a folder holds a run with another configuration. Nothing is trained then.
        Ended: on SIGTERM, SIGINT and SIGHUP, when the runs are ended. They also end with a study
            that is killed.
    """
    for run in runs:
        check_folder(run, folder / run.name)
    waiting = [run for run in runs if not is_finished(folder / run.name)]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished.")
    if config.jobs == 0:
        return []

    failures: list[Failure] = []
    active: list[_Job] = []
    ended, total, begin = 0, len(waiting), time.monotonic()
    with _raised():
        try:
            while waiting or active:
                while waiting and len(active) < config.jobs:
                    run = waiting.pop(0)
                    active.append(_Job(run, _start(config, run, folder), time.monotonic()))
                    say(f"{run.name} starts.")
                time.sleep(_POLL_SECONDS)
                for job in [job for job in active if job.process.poll() is not None]:
                    active.remove(job)
                    ended += 1
                    failure = _failure(job, folder)
                    if failure is not None:
                        failures.append(failure)
                    took = duration(time.monotonic() - job.start)
                    left = (time.monotonic() - begin) / ended * (total - ended)
                    say(
                        f"{job.run.name} {'failed' if failure else 'is finished'} after {took}; "
                        f"{ended} of {total} runs done"
                        + (f", about {duration(left)} left." if ended < total else ".")
                    )
        finally:
            _end(active)
    return failures


@contextmanager
def _raised() -> Iterator[None]:
    """Raise :class:`Ended` at the first signal that asks for an end, and ignore those after it."""

    def end(number: int, _: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    before = {each: signal.signal(each, end) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.process.terminate()
    until = time.monotonic() + _PATIENCE
    for job in jobs:
        try:
            job.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()


def _start(config: StudyConfig, run: Run, folder: Path) -> subprocess.Popen[bytes]:
    out = folder / run.name
    out.mkdir(parents=True, exist_ok=True)
    with (out / OVERRIDES).open("w", encoding="utf-8") as file:
        write_yaml(run.overrides, file)
    (out / RECIPE).write_text(f"{run.recipe}\n", encoding="utf-8")
    command = [sys.executable, "-m", f"atr_moco_plugin.recipes.{config.recipe}", str(out)]
    study, libc = os.getpid(), ctypes.CDLL(None)

    def end_with_the_study() -> None:
        # Also where it is killed and can end nothing itself.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != study:
            os.kill(os.getpid(), signal.SIGTERM)

    with _log(folder, run).open("wb") as stream:
        return subprocess.Popen(
            [*command, "--no-rich", "--config-file", str(out / OVERRIDES)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(config.threads)},
            preexec_fn=end_with_the_study if sys.platform == "linux" else None,
        )


def _log(folder: Path, run: Run) -> Path:
    return folder / f"{run.name}.log"


def _failure(job: _Job, folder: Path) -> Failure | None:
    status, log = job.process.returncode, _log(folder, job.run)
    if status == 0 and is_finished(folder / job.run.name):
        return None
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return Failure(job.run.name, status, log, tuple(lines[-_LAST_LINES:]))
