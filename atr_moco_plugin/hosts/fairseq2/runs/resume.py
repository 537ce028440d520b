"""Which checkpoint a run goes on from, settled before fairseq2 loads one.

fairseq2 takes the newest checkpoint that has a trainer's state, whatever state that is in, and
starts from zero where there is none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.error import RecipeError
from torch.optim import Optimizer

from atr_moco_plugin.io.checkpoints import problem_in, step_folders
from atr_moco_plugin.errors import InputError

# What moves in a schedule; the rest of its state is its options.
_POSITION = ("last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step")
PARTS = ("trainer", "model", "optimizer", "data_reader")
"""Folders of a checkpoint that a run can go on from."""


def settle(output_dir: Path, checkpoints: Path, gangs: Gangs) -> None:
    """Leave a run's folder so that the newest sound checkpoint is the one it goes on from.

    Newer ones that are damaged or lack a part are renamed to ``step_N.damaged``, with a warning,
    and what the interrupted run recorded after that step in ``metrics`` is dropped, since it is
    recorded again. A whole one that torch refuses stops the run and stays as it is: going on from
    an older one would lose what was trained since. Every process calls it; the first one does it.

    Args:
        output_dir: the run's folder.
        checkpoints: where it saves.
        gangs: the processes.

    Raises:
        RecipeError: on every process, where there are checkpoints and none can be gone on from (a
            run never begins anew in their place), where torch refuses the newest whole one, or
            where other processes than these saved it.
    """
    said: list[object] = [None]
    if gangs.root.rank == 0:
        try:
            step = _settle(checkpoints, gangs.root.size, gangs.sdp.size)
            for file in sorted((output_dir / "metrics").glob("*.jsonl")):
                drop_after(file, step)
        except (RecipeError, InputError, OSError) as ex:
            said = [str(ex)]
    gangs.root.broadcast_objects(said)
    if said[0] is not None:
        raise RecipeError(str(said[0]))


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was saved whole, None where there is none."""
    steps = steps_in(checkpoints)
    return steps[-1][1] if steps else None


def steps_in(checkpoints: Path) -> list[tuple[int, Path]]:
    """Step and folder of every checkpoint, oldest first."""
    return step_folders(checkpoints, "step_")


def _settle(checkpoints: Path, processes: int, shards: int) -> int:
    """The step to go on from, 0 for a new run; damaged newer ones are set aside."""
    steps = steps_in(checkpoints)
    damaged: list[tuple[Path, str]] = []
    while steps:
        step, folder = steps.pop()
        try:
            problem = problem_with_checkpoint(folder)
        except InputError as ex:
            raise RecipeError(
                f"The run cannot go on from its newest checkpoint, {folder.name}: {ex} To train "
                "from its weights alone, give another output folder and `init=RUN` there."
            ) from None
        if problem is None:
            _check_processes(folder, processes, shards)
            _set_aside(damaged, folder.name)
            return step
        damaged.append((folder, problem))
    if damaged:
        folder, problem = damaged[0]
        raise RecipeError(
            f"{checkpoints} has checkpoints, but the run cannot go on from any of them (the newest, "
            f"{folder.name}, {problem}), and does not begin anew in their place. Give another "
            "output folder, with `init=RUN` there to start from the weights of this one, or move "
            "the checkpoints away."
        )
    return 0


def problem_with_checkpoint(folder: Path) -> str | None:
    """Why a run cannot go on from a checkpoint.

    Args:
        folder: a folder ``step_N``.

    Returns:
        What follows its name in a sentence; None where it is sound.

    Raises:
        InputError: for a file in it that is whole and that torch refuses.
    """
    return problem_in(folder, {f"{part} state": f"{part}/**/*.pt" for part in PARTS})


def _check_processes(folder: Path, processes: int, shards: int) -> None:
    saved = len(list((folder / "trainer").rglob("*.pt")))
    saved_shards = len(list((folder / "model").rglob("*.pt")))
    if saved != processes:
        raise RecipeError(
            f"{folder} was saved by {saved} process(es), but this run has {processes}: go on with "
            f"{saved}, or start a new run from its weights with `init={folder}` and another output "
            "folder."
        )
    if saved_shards != shards:
        was, now = ("fsdp" if x > 1 else "ddp" for x in (saved_shards, shards))
        raise RecipeError(
            f"{folder} was saved with `trainer.data_parallelism={was}`, but this run has {now}: go "
            f"on with {was}, or start a new run from its weights with `init={folder}` and another "
            "output folder."
        )


def _set_aside(damaged: list[tuple[Path, str]], taken: str) -> None:
    for folder, problem in damaged:
        aside = folder.with_name(f"{folder.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = folder.with_name(f"{folder.name}.damaged{number}")
        folder.rename(aside)
        log.warning(
            "The checkpoint {} {}. The run goes on from {}; the damaged one is kept as {}.",
            folder, problem, taken, aside.name,
        )  # fmt: skip


class Unchanged:
    """Whether the options of the optimizer and its schedule are still those of the configuration.

    A checkpoint brings its own with it, which silently take the place of what a changed
    configuration says; a schedule over a number of steps that has changed would even begin anew.

    Args:
        scheduler: of the learning rate, as the configuration makes it.
        optimizer: likewise.
    """

    def __init__(self, scheduler: LRScheduler, optimizer: Optimizer) -> None:
        self._scheduler = scheduler
        self._optimizer = optimizer
        self._told: dict[str, object] | None = self._options()

    def check(self) -> None:
        """Look once, before the first step.

        Raises:
            RecipeError: naming what the checkpoint has changed.
        """
        told, self._told = self._told, None
        if told is None:
            return
        found = self._options()
        changed = [
            f"{name} was {found.get(name)!r} and is {value!r}"
            for name, value in told.items()
            if found.get(name) != value
        ]
        if changed:
            raise RecipeError(
                f"The run cannot go on with another optimizer or schedule: {'; '.join(changed)}. "
                "Give it the `optimizer`, `lr_scheduler` and `regime.num_steps` it began with, or "
                "start a new run from its weights with `init=RUN` and another output folder."
            )

    def _options(self) -> dict[str, object]:
        groups = self._optimizer.param_groups
        return {
            **{k: v for k, v in self._scheduler.state_dict().items() if k not in _POSITION},
            **{
                f"{name} of parameter group {i}": value
                for i, group in enumerate(groups)
                for name, value in group.items()
                if name not in ("params", "lr")
            },
        }


def drop_after(file: Path, step: int) -> None:
    """Drop from a file of fairseq2's metrics what was recorded after a step, and a last line that
    a crash left half-written; the file is replaced at once.

    Args:
        file: JSON lines with the key ``Step``.
        step: the last one to keep.
    """
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, file)


def _step_of(line: bytes) -> int:
    """The step of a record, 0 for a line that is none."""
    try:
        return int(json.loads(line)["Step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
