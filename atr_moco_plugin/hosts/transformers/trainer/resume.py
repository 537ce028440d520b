"""The checkpoint that training resumes from, and the sentence on it after a NaN."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import problem_in, read_torch, step_folders
from atr_moco_plugin.safety.last_good import last_good_checkpoint

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")

OPTIONS, PROCESSES, PASS = "atr_moco_plugin", "processes", "pass"
"""In ``trainer_state.json``: what a training has to keep, and of it how many processes it had, and
which pass over a stream it was in."""


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
        InputError: there are checkpoints and none is whole, or torch refuses the newest whole one:
            an older one would lose what was trained since.

    Example:
        >>> trainer.train(  # doctest: +SKIP
        ...     resume_from_checkpoint=last_checkpoint(trainer.args.output_dir)
        ... )
    """
    problem = ""
    for folder in _newest_first(output_dir):
        found = problem_with(folder, (*_PARTS, *parts)) or _lacks_a_process(folder)
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


def set_aside_earlier(file: Path) -> None:
    """Give the records of an earlier training another name, for one that begins anew in the same
    folder.

    Args:
        file: of the records; none, and an empty one, is no mistake.
    """
    if not file.is_file() or not file.stat().st_size:
        return
    aside = next(x for n in count(1) if not (x := file.with_name(f"{file.name}.{n}")).exists())
    file.rename(aside)
    warnings.warn(
        f"{file} has the records of an earlier training; they are in {aside.name} from now on.",
        stacklevel=2,
    )


def read_weights(folder: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a checkpoint ``checkpoint-N``, a mapping for each of its files."""
    for file in weights_in(folder):
        yield load_file(file) if file.suffix == ".safetensors" else read_torch(file)


def _newest_first(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The folders ``checkpoint-N``, whole or not."""
    return [folder for _, folder in reversed(step_folders(Path(output_dir), "checkpoint-"))]


def _lacks_a_process(folder: Path) -> str | None:
    """Why a checkpoint, which is whole otherwise, lacks the random state of a process that saved
    it; None where it has all, or does not say how many there are. Each process writes its own."""
    state = json.loads((folder / "trainer_state.json").read_text())
    processes = state.get("stateful_callbacks", {}).get(OPTIONS, {}).get(PROCESSES, 0)
    names = [f"rng_state_{i}.pth" for i in range(processes)] if processes > 1 else []
    missing = [name for name in names if not (folder / name).is_file()]
    return f"has no {missing[0]}" if missing else None


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
