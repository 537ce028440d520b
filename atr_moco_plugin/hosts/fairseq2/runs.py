"""Reading the folder that a training run leaves."""

from __future__ import annotations

from pathlib import Path

from fairseq2.recipe.error import RecipeError


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """The run and the checkpoint that a path names.

    Args:
        path: a run's output folder, which stands for its best checkpoint (the highest validation
            score; the last one where there are no scores), or one of its ``checkpoints/step_N``.

    Returns:
        The run's folder and the checkpoint's.

    Raises:
        RecipeError: when there is no complete checkpoint.
    """
    if (path / "model").is_dir():
        return path.resolve().parent.parent, path
    steps = {
        int(folder.name.removeprefix("step_")): folder
        for folder in (path / "checkpoints").glob("step_*")
        if folder.name.removeprefix("step_").isdigit() and (folder / "model").is_dir()
    }
    if not steps:
        raise RecipeError(
            f"{path}: no checkpoint there; looked for `checkpoints/step_N/model` and `model`. Give "
            "the output folder of a training run or one of its checkpoints."
        )
    scores = {step: score for step in steps if (score := _score(path, step)) is not None}
    best = max(scores, key=lambda step: (scores[step], step), default=max(steps))
    return path, steps[best]


def _score(run: Path, step: int) -> float | None:
    try:
        return float((run / "checkpoints" / "scores" / f"step_{step}.txt").read_text())
    except (FileNotFoundError, ValueError):
        return None
