"""The guard against NaN in ``Trainer``: names of clips and checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch.optim import Optimizer
from transformers import Trainer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.trainer.resume import (
    last_checkpoint,
    newest_first,
    read_weights,
    weights_in,
)
from atr_moco_plugin.safety.finite import FiniteGuard, by_number
from atr_moco_plugin.safety.last_good import last_good_checkpoint


def make_guard(trainer: Trainer, optimizer: Optimizer, max_skipped: int) -> FiniteGuard:
    """A guard on the optimizer of a training.

    Args:
        trainer: its model has a ``criterion``. Where its training set has ``name_clips(ids)``, as
            :class:`~atr_moco_plugin.hosts.transformers.data.dataset.PairDataset` has, messages name clips
            by what that maps their ids to.
        optimizer: its own, which accelerate may have wrapped.
        max_skipped: see :class:`~atr_moco_plugin.safety.finite.FiniteGuard`.
    """
    return FiniteGuard(
        getattr(optimizer, "optimizer", optimizer),
        trainer.model.criterion,
        max_skipped=max_skipped,
        name_clips=getattr(trainer.train_dataset, "name_clips", by_number),
        last_good=partial(last_good, Path(trainer.args.output_dir)),
    )


def last_good(output_dir: Path, sound: bool) -> str:
    """A sentence that names the checkpoint to go on from, see
    :func:`~atr_moco_plugin.safety.last_good.last_good_checkpoint`.

    Args:
        output_dir: where ``Trainer`` saves.
        sound: whether the current weights are finite.
    """
    try:
        newest = last_checkpoint(output_dir)
    except InputError as ex:
        return str(ex)
    if newest is None:
        folders = []
    elif sound:
        folders = [Path(newest)]
    else:
        folders = [folder for folder in newest_first(output_dir) if weights_in(folder)]
    return last_good_checkpoint(
        folders,
        output_dir,
        sound,
        read_weights,
        resume="give it to `resume_from_checkpoint`.",
        restart="begin a new training.",
    )
