"""Loaders of ``Trainer`` with the collator and the data sets for training or for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch.utils.data import DataLoader
from transformers import Trainer

from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator

Loader = Callable[..., DataLoader[Any]]


@dataclass
class LoadersOfTrainer:
    """What the loaders of a trainer have been made of.

    Attributes:
        evaluated: the data set of the last loader that was not made to train, as it was given.
    """

    evaluated: Any = None


def set_up_loaders(
    trainer: Trainer, for_training: Callable[[ClapCollator], ClapCollator]
) -> LoadersOfTrainer:
    """Have a trainer make its loaders with the form of its collator for training or evaluation,
    whatever collator and data sets it has by then.

    Loaders for evaluation take ``by_clip()`` of data sets that have it. They keep the last batch
    even with ``dataloader_drop_last``: figures would lack its clips.

    Args:
        trainer: its methods that make loaders are wrapped.
        for_training: makes the collator to train with.

    Returns:
        What changes with each loader that it makes.
    """
    made = LoadersOfTrainer()

    def wrapped(get: Loader, training: bool) -> Loader:
        @wraps(get)
        def loader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
            collator = trainer.data_collator
            dataset: Any = trainer.eval_dataset
            drop_last = trainer.args.dataloader_drop_last
            if not training:
                given = next((x for x in (*args, *kwargs.values()) if x is not None), dataset)
                made.evaluated = dataset[given] if isinstance(given, str) else given
            if isinstance(collator, ClapCollator):
                form = for_training if training else ClapCollator.for_evaluation
                trainer.data_collator = form(collator)
                trainer.eval_dataset = _by_clip(dataset)
                args = tuple(_by_clip(data) for data in args)
                kwargs = {name: _by_clip(data) for name, data in kwargs.items()}
            trainer.args.dataloader_drop_last = drop_last and training
            try:
                return get(*args, **kwargs)
            finally:
                trainer.data_collator, trainer.eval_dataset = collator, dataset
                trainer.args.dataloader_drop_last = drop_last

        return loader

    for kind in ("train", "eval", "test"):
        name = f"get_{kind}_dataloader"
        setattr(trainer, name, wrapped(getattr(trainer, name), training=kind == "train"))
    return made


def _by_clip(data: Any) -> Any:
    """A data set by its clips; also the name of one, or several by their names."""
    if isinstance(data, dict):
        return {name: _by_clip(one) for name, one in data.items()}
    return data.by_clip() if callable(getattr(data, "by_clip", None)) else data
