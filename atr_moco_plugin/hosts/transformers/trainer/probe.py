"""The probe of a training on ``Trainer``: the keys of its first pairs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from atr_moco_plugin.criterion.probe import PROBE_PAIRS, KeyProbe
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.data.collator import ClapCollator
from atr_moco_plugin.hosts.transformers.data.items import NO_ITEM, read_item
from atr_moco_plugin.hosts.transformers.model.trainer_model import TrainerModel
from atr_moco_plugin.tensors.nests import map_tensors

_LOOKED_AT = 256
"""So many examples are read at most, where those at the head cannot be used."""


def key_probe(trainer: Trainer, model: TrainerModel, probe_every: int | None) -> KeyProbe | None:
    """The probe of a trainer's first training pairs, read without touching a random state.

    They come from ``probe_batch(P)`` of the training set, a batch of the model's arguments, where
    it has that method; else from its first usable examples, or clips of its ``by_clip()``, with
    the evaluation form of a :class:`~atr_moco_plugin.hosts.transformers.ClapCollator`.

    Args:
        trainer: its training set and collator.
        model: its model.
        probe_every: as ``MocoCallback`` was given it; ``None`` lets the probe be left out.

    Returns:
        The probe; ``None`` for ``probe_every=0``, and where there can be none and nobody asked.

    Raises:
        InputError: ``probe_every`` is above 0 and there can be no probe.
    """
    if probe_every == 0:
        return None
    with _random_states_kept():
        batch = _first_pairs(trainer)
    if batch is None or not hasattr(model.criterion, "key_towers"):
        if probe_every is None:
            return None
        raise InputError(
            f"MocoCallback.probe_every is {probe_every}, but there are no pairs to encode again "
            "and again: give Trainer a training set with a length and a ClapCollator, or one with "
            "`probe_batch(P)`, and a criterion with momentum keys; or set it to 0."
        )
    batch = dict(map_tensors(lambda x: x.to(trainer.args.device), batch))
    clip_ids, caption_ids = batch.pop("clip_id"), batch.pop("caption_id")
    audio, text = model.arguments_of_towers(**batch)
    return KeyProbe(model.criterion, audio, text, clip_ids, caption_ids)


def _first_pairs(trainer: Trainer) -> dict[str, Any] | None:
    dataset: Any = trainer.train_dataset
    if hasattr(dataset, "probe_batch"):
        return dict(dataset.probe_batch(PROBE_PAIRS))
    collator = trainer.data_collator
    if not (isinstance(collator, ClapCollator) and isinstance(dataset, Sized)):
        return None
    if hasattr(dataset, "by_clip"):
        dataset = dataset.by_clip()
    rate = collator.feature_extractor.sampling_rate
    read = (dataset[number] for number in range(min(_LOOKED_AT, len(dataset))))
    usable = (example for example in read if not read_item(example, rate).problem)
    examples = list(islice(usable, PROBE_PAIRS))
    return _one_caption_each(collator.for_evaluation()(examples)) if examples else None


def _one_caption_each(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first window and the first caption of every clip of an evaluation batch that has both."""
    found = {name: x for name, x in batch.items() if name not in ("windows", "skipped_clip_id")}
    if "windows" in batch:
        found |= {name: found[name][:, 0] for name in ("input_features", "is_longer")}
    if found["caption_id"].ndim > 1:
        of_text = ("caption_id", "input_ids", "attention_mask")
        found |= {name: found[name][:, 0] for name in of_text}
    usable = (found["clip_id"] != NO_ITEM) & (found["caption_id"] != NO_ITEM)
    return {name: x[usable] for name, x in found.items()}


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Data sets and feature extractors may draw from any of them."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
