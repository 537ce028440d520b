"""Which of ``Trainer``'s checkpoints training goes on from."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.checkpoints import problem_in, read_torch, step_folders

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")


def last_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The newest checkpoint in a folder that is whole.

    ``Trainer`` writes a checkpoint file by file in its place, so one that was interrupted is there
    in part, and ``resume_from_checkpoint=True`` takes it for the last one. Those that are not whole
    are passed over with a warning.

    Args:
        output_dir: ``TrainingArguments.output_dir``.

    Returns:
        The folder, for ``trainer.train(resume_from_checkpoint=...)``; None where there is no
        checkpoint, which begins a new training.

    Raises:
        InputError: where there are checkpoints and none is whole, or where torch refuses one that
            is: going on from an older one would lose what was trained since.

    Example:
        >>> trainer.train(  # doctest: +SKIP
        ...     resume_from_checkpoint=last_checkpoint(trainer.args.output_dir)
        ... )
    """
    problem = ""
    for folder in newest_first(output_dir):
        found = _problem_with_folder(folder)
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


def newest_first(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The folders ``checkpoint-N`` of a training, whole or not."""
    return [folder for _, folder in reversed(step_folders(Path(output_dir), "checkpoint-"))]


def weights_in(folder: Path) -> list[Path]:
    """The files of a checkpoint that have the model's weights: safetensors, or those of
    ``torch.save`` where it was written with ``save_safetensors=False``."""
    return [file for pattern in _WEIGHTS for file in sorted(folder.glob(pattern))]


def read_weights(folder: Path) -> Iterator[dict[str, Tensor]]:
    """The weights of a checkpoint, name to tensor, file by file."""
    for file in weights_in(folder):
        yield load_file(file) if file.suffix == ".safetensors" else read_torch(file)


def _problem_with_folder(folder: Path) -> str | None:
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return "has no readable trainer_state.json"
    weights = weights_in(folder)
    if not weights:
        return f"has no weights ({' or '.join(_WEIGHTS)})"
    parts = (*_PARTS, *(file.name for file in weights))
    return problem_in(folder, {pattern: pattern for pattern in parts})
