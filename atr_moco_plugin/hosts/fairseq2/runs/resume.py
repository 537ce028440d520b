"""Which checkpoint a run goes on from, settled before fairseq2 loads one.

fairseq2 takes the newest checkpoint that has a trainer's state, whatever state that is in, and
starts from zero where there is none.
"""

from __future__ import annotations

from pathlib import Path

from fairseq2.gang import Gangs
from fairseq2.logging import log
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.error import RecipeError
from torch.optim import Optimizer

from atr_moco_plugin.data.loading.skipped import forget_skipped
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.processes import from_first
from atr_moco_plugin.io.changes import changes
from atr_moco_plugin.io.checkpoints import problem_in, step_folders
from atr_moco_plugin.io.step_records import drop_after
from atr_moco_plugin.plugins import available

# What moves in a schedule; the rest of its state is its options.
_POSITION = ("last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step")
PARTS = ("trainer", "model", "optimizer", "data_reader")
"""Folders of a checkpoint that a run can go on from."""


def prepare_resume(output_dir: Path, checkpoints: Path, gangs: Gangs) -> None:
    """Leave a run's folder so that the newest sound checkpoint is the one it goes on from.

    Newer ones that are damaged or lack a part are renamed to ``step_N.damaged``, and those of
    ``regime.save_model_only``, which have a sound model alone, to ``step_N.model_only``, with a
    warning: fairseq2 would take them for the last ones, and delete what the run saves on its way
    there. What the interrupted run recorded after that step in ``metrics`` and the files of hooks
    is dropped, since it is recorded again. So are the clips that an earlier run in its folder has
    skipped, where this one begins anew. A whole checkpoint that torch refuses stops the run and
    stays as it is: going on from an older one would lose what was trained since. Every process
    calls it; the first one does it.

    Args:
        output_dir: the run's folder.
        checkpoints: where it saves.
        gangs: the processes.

    Raises:
        InputError: on every process, where there are checkpoints and none can be gone on from (a
            run never begins anew in their place), where torch refuses the newest whole one, or
            where other processes than these saved it.
    """

    def prepare() -> None:
        step = _choose(checkpoints, gangs.root.size, gangs.sdp.size)
        of_hooks = [output_dir / f"{name}.jsonl" for name in available("hooks")]
        for file in (*sorted((output_dir / "metrics").glob("*.jsonl")), *of_hooks):
            drop_after(file, step)
        if step == 0:
            forget_skipped(output_dir)

    from_first(prepare, gangs.root.device)


def _choose(checkpoints: Path, processes: int, shards: int) -> int:
    """The step to go on from, 0 for a new run; newer ones are set aside."""
    steps = step_folders(checkpoints, "step_")
    newer: list[tuple[Path, str]] = []
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
            for other, said in newer:
                _set_aside(other, said, folder.name)
            return step
        newer.append((folder, problem))
    if newer:
        folder, problem = newer[0]
        raise RecipeError(
            f"{checkpoints} has checkpoints, but the run cannot go on from any of them (the "
            f"newest, {folder.name}, {problem}), and does not begin anew in their place. Give "
            "another output folder, with `init=RUN` there to start from the weights of this "
            "one, or move the checkpoints away."
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


def _is_model_only(folder: Path) -> bool:
    """Whether a checkpoint was saved as a model alone, which is sound."""
    others = (folder / part for part in PARTS if part != "model")
    parts = {"model state": "model/**/*.pt"}
    return not any(x.exists() for x in others) and problem_in(folder, parts) is None


def _set_aside(folder: Path, problem: str, taken: str) -> None:
    kind, said = "damaged", f"{problem}. The run"
    if _is_model_only(folder):
        kind, said = "model_only", "has the model alone (`regime.save_model_only`), and the run"
    aside = folder.with_name(f"{folder.name}.{kind}")
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.{kind}{number}")
    folder.rename(aside)
    log.warning(
        "The checkpoint {} {} goes on from {}; {} is kept as {}.",
        folder, said, taken, folder.name, aside.name,
    )  # fmt: skip


def optimizer_options(scheduler: LRScheduler, optimizer: Optimizer) -> dict[str, object]:
    """The options of an optimizer and its schedule, by name.

    A checkpoint brings its own, which silently take the place of what a changed configuration says;
    a schedule over a number of steps that has changed would even begin anew. So they are read as
    the configuration made them, and again once the checkpoint is loaded, see :func:`check_options`.
    """
    options = {k: v for k, v in scheduler.state_dict().items() if k not in _POSITION}
    for number, group in enumerate(optimizer.param_groups):
        for name in group.keys() - {"params", "lr"}:
            options[f"{name} of parameter group {number}"] = group[name]
    return options


def check_options(configured: dict[str, object], loaded: dict[str, object]) -> None:
    """Compare the options of the configuration with those of the checkpoint.

    Raises:
        RecipeError: naming what has changed.
    """
    changed = changes(loaded, configured)
    if changed:
        raise RecipeError(
            f"The run cannot go on with another optimizer or schedule: {changed}. Give it the "
            "`optimizer`, `lr_scheduler` and `regime.num_steps` it began with, or start a new run "
            "from its weights with `init=RUN` and another output folder."
        )
