"""The guard against NaN in a run of fairseq2's trainer: names of clips, checkpoints, the log."""

from __future__ import annotations

from pathlib import Path

from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from fairseq2.recipe.error import RecipeError
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.fairseq2.compat import checkpoint_dir
from atr_moco_plugin.hosts.fairseq2.runs.folder import read_state
from atr_moco_plugin.io.checkpoints import step_folders
from atr_moco_plugin.safety.finite import FiniteGuard, NameClips, by_number
from atr_moco_plugin.safety.last_good import last_good_checkpoint


def make_guard(
    context: RecipeContext,
    criterion: Module,
    *,
    max_skipped: int = 0,
    name_clips: NameClips = by_number,
) -> FiniteGuard:
    """A guard on the optimizer of a run, which ends in one line where it stops the run.

    Args:
        context: the recipe's.
        criterion: what is trained, without the wrapper for data parallelism.
        max_skipped: see :class:`~atr_moco_plugin.safety.finite.FiniteGuard`.
        name_clips: see there; such as
            :func:`~atr_moco_plugin.safety.names.name_clips_of` a data set.
    """
    checkpoints: Path = checkpoint_dir(context)

    def last_good(sound: bool) -> str:
        return last_good_checkpoint(
            [folder for _, folder in reversed(step_folders(checkpoints, "step_"))],
            checkpoints,
            sound,
            _read,
            resume="move later ones away, and the same command goes on from it.",
            restart="start a new run.",
        )

    return FiniteGuard(
        context.resolver.resolve(Optimizer),
        criterion,
        max_skipped=max_skipped,
        name_clips=name_clips,
        last_good=last_good,
        error=RecipeError,
        warn=warn,
    )


def _read(checkpoint: Path) -> list[dict[str, Tensor]]:
    try:
        return read_state(checkpoint)
    except RecipeError as ex:
        raise InputError(str(ex)) from None


def warn(text: str) -> None:
    """Write a warning to fairseq2's log, whatever braces are in it."""
    log.warning("{}", text)
