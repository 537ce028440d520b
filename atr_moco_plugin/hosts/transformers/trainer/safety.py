"""The guard against NaN in ``Trainer``: names of clips and checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.trainer.resume import (
    last_checkpoint,
    newest_first,
    weights_in,
)
from atr_moco_plugin.io.checkpoints import read_torch
from atr_moco_plugin.safety.finite import FiniteGuard, by_number, not_finite


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
    """A sentence that names the checkpoint to go on from.

    Args:
        output_dir: where ``Trainer`` saves.
        sound: whether the weights of now are finite. Then those that were saved are too, since no
            step is made without a look at it; otherwise the checkpoints are looked through.
    """
    try:
        last = last_checkpoint(output_dir)
    except InputError as ex:
        return str(ex)
    if last is None:
        return f"Nothing was saved in {output_dir} yet."
    if sound:
        return f"The last good checkpoint is {last}."
    for folder in newest_first(output_dir):
        weights = weights_in(folder)
        if weights and not any(not_finite(_load(file)) for file in weights):
            return f"The last good checkpoint is {folder}: give it to `resume_from_checkpoint`."
    return f"No checkpoint in {output_dir} is without NaN or infinity: begin a new training."


def _load(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    return read_torch(file)
