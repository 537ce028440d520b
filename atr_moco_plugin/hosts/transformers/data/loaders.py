"""Whether ``Trainer`` trains or evaluates, told to the collator and the data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.utils.data import DataLoader
from transformers import Trainer

from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator

Loader = Callable[..., DataLoader[Any]]


def tell_loaders(trainer: Trainer, for_training: Callable[[ClapCollator], ClapCollator]) -> None:
    """Have a trainer's loaders made with the collator's form for training or evaluation, whatever
    collator and data sets the trainer has by then.

    Those of evaluation take the ``by_clip()`` of data sets that have one, and keep the last batch
    where ``dataloader_drop_last`` would drop it, since figures would lack its clips.

    Args:
        trainer: its methods that make loaders are wrapped.
        for_training: the collator to train with.
    """

    def training(get: Loader) -> Loader:
        @wraps(get)
        def loader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
            collator = trainer.data_collator
            if isinstance(collator, ClapCollator):
                trainer.data_collator = for_training(collator)
            try:
                return get(*args, **kwargs)
            finally:
                trainer.data_collator = collator

        return loader

    def evaluation(get: Loader) -> Loader:
        @wraps(get)
        def loader(*args: Any, **kwargs: Any) -> DataLoader[Any]:
            collator, own = trainer.data_collator, trainer.eval_dataset
            drop_last = trainer.args.dataloader_drop_last
            if isinstance(collator, ClapCollator):
                trainer.data_collator = collator.for_evaluation()
                trainer.eval_dataset = _by_clip(own)
                args = tuple(_by_clip(data) for data in args)
                kwargs = {name: _by_clip(data) for name, data in kwargs.items()}
            trainer.args.dataloader_drop_last = False
            try:
                return get(*args, **kwargs)
            finally:
                trainer.data_collator, trainer.eval_dataset = collator, own
                trainer.args.dataloader_drop_last = drop_last

        return loader

    trainer.get_train_dataloader = training(trainer.get_train_dataloader)
    trainer.get_eval_dataloader = evaluation(trainer.get_eval_dataloader)
    trainer.get_test_dataloader = evaluation(trainer.get_test_dataloader)


def _by_clip(data: Any) -> Any:
    """A data set, or the name of one, or several by their names."""
    if isinstance(data, dict):
        return {name: _by_clip(one) for name, one in data.items()}
    by_clip = getattr(data, "by_clip", None)
    return by_clip() if callable(by_clip) else data
