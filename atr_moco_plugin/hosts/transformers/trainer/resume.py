"""The checkpoint that training resumes from, and the sentence on it after a NaN."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.distributed import world_size
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import problem_in, read_torch, step_folders
from atr_moco_plugin.safety.last_good import last_good_checkpoint

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")


def last_checkpoint(output_dir: str | os.PathLike[str], *, parts: Sequence[str] = ()) -> str | None:
    """The newest whole checkpoint in a folder.

    ``Trainer`` writes a checkpoint file by file in its place, so an interrupted one is there in
    part, and ``resume_from_checkpoint=True`` would take it. This function passes over checkpoints
    that are not whole, with a warning.

    Args:
        output_dir: ``TrainingArguments.output_dir``.
        parts: further files that a whole checkpoint has, such as ``state.json``, which a callback
            of yours writes after ``Trainer`` has written the others.

    Returns:
        The folder, for ``trainer.train(resume_from_checkpoint=...)``; None where there is no
        checkpoint, which begins a new training.

    Raises:
        InputError: there are checkpoints and none is whole, the newest whole one was saved by
            another number of processes, or torch refuses it: an older one would lose what was
            trained since.

    Example:
        >>> trainer.train(  # doctest: +SKIP
        ...     resume_from_checkpoint=last_checkpoint(trainer.args.output_dir)
        ... )
    """
    problem = ""
    for folder in _newest_first(output_dir):
        found = problem_with(folder, (*_PARTS, *parts)) or _lacks_processes(folder)
        if found is None:
            return str(folder)
        problem = problem or f"{folder} {found}"
        warnings.warn(f"{folder} {found}; it is passed over.", stacklevel=2)
    if problem:
        raise InputError(
            f"{output_dir} has checkpoints, but training cannot go on from any of them "
            f"({problem}); move them away to begin anew."
        )
    return None


def last_good(output_dir: str | os.PathLike[str], sound: bool) -> str:
    """A sentence that names the checkpoint to go on from, see
    :func:`~atr_moco_plugin.safety.last_good.last_good_checkpoint`.

    Args:
        output_dir: ``TrainingArguments.output_dir``.
        sound: whether the current weights are finite.
    """
    try:
        newest = last_checkpoint(output_dir)
    except InputError as ex:
        return str(ex)
    folders = [folder for folder in _newest_first(output_dir) if weights_in(folder)]
    return last_good_checkpoint(
        folders[folders.index(Path(newest)) :] if newest else [],
        Path(output_dir),
        sound,
        read_weights,
        resume="give it to `resume_from_checkpoint`.",
        restart="begin a new training.",
    )


def read_weights(folder: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a checkpoint ``checkpoint-N``, a mapping for each of its files."""
    for file in weights_in(folder):
        yield load_file(file) if file.suffix == ".safetensors" else read_torch(file)


def _newest_first(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The folders ``checkpoint-N``, whole or not."""
    return [folder for _, folder in reversed(step_folders(Path(output_dir), "checkpoint-"))]


def _lacks_processes(folder: Path) -> str | None:
    """Why a checkpoint has no random state for a process of this run; None where each has its own.

    Each process writes its own, so that of an interrupted checkpoint some may be missing.

    Raises:
        InputError: it was saved by more processes, or by one where this run has several.
    """
    names = [file.stem.removeprefix("rng_state_") for file in folder.glob("rng_state_*.pth")]
    numbers = {int(name) for name in names if name.isdecimal()}
    processes = max(world_size(), int(os.environ.get("WORLD_SIZE") or 1))
    saved = max(2, max(numbers) + 1) if numbers else 1  # one alone has no number
    if numbers and (lacking := set(range(saved)) - numbers):
        return f"has no rng_state_{min(lacking)}.pth"
    if 1 < saved < processes:
        return (
            f"has the random states of {saved} process(es), but this run has {processes}: if that "
            f"many saved it, go on with {saved}"
        )
    if saved != processes:
        raise InputError(
            f"{folder} was saved by {saved} process(es), but this run has {processes}: go on with "
            f"{saved}, or begin a new training from its weights in another folder."
        )
    return None


def weights_in(folder: Path) -> list[Path]:
    """The files with the model's weights: safetensors, or files of ``torch.save`` where
    ``save_safetensors=False`` wrote them."""
    return [file for pattern in _WEIGHTS for file in sorted(folder.glob(pattern))]


def problem_with(folder: Path, parts: Sequence[str] = ()) -> str | None:
    """Why a checkpoint's weights, and its files of other ``parts``, cannot be read; None where they
    can."""
    texts = [name for name in parts if name.endswith(".json")]
    for name in ("trainer_state.json", *texts):
        try:
            json.loads((folder / name).read_text())
        except (OSError, ValueError):
            return f"has no readable {name}"
    weights = weights_in(folder)
    if not weights:
        return f"has no weights ({' or '.join(_WEIGHTS)})"
    files = (*(x for x in parts if x not in texts), *(file.name for file in weights))
    return problem_in(folder, {pattern: pattern for pattern in files})
