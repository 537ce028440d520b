"""Batches of pairs as a ``ClapModel`` takes them: its features in place of waveforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import ClapFeatureExtractor

from atr_moco_plugin.data.loading.batch import PairBatch
from atr_moco_plugin.model.clap import clip_features


def clap_features(
    extractor: ClapFeatureExtractor,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function from ``waveforms`` and ``lengths`` of a batch, no clip longer than the extractor
    takes, to ``input_features`` and ``is_longer`` of a ``ClapModel``."""

    def features(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        # The extractor marks one clip at random as longer where the model fuses crops; none is.
        longer = torch.zeros(len(waveforms), 1, dtype=torch.bool)
        clips = zip(waveforms.numpy(), lengths.tolist(), strict=True)
        return torch.stack([clip_features(extractor, x[:n], seed=0) for x, n in clips]), longer

    return features


def clap_inputs(extractor: ClapFeatureExtractor) -> Callable[[PairBatch], dict[str, Any]]:
    """A function from a training batch to the arguments of
    :class:`~atr_moco_plugin.hosts.transformers.ClapTrainerModel`."""
    features = clap_features(extractor)

    def inputs(batch: PairBatch) -> dict[str, Any]:
        input_features, longer = features(batch.waveforms, batch.lengths)
        if extractor.truncation == "fusion":
            longer[0] = True  # or the weights that fuse crops would have no gradient
        return {
            "input_features": input_features,
            "is_longer": longer,
            "input_ids": batch.input_ids,
            "attention_mask": batch.text_mask.long(),
            "clip_id": batch.clip_ids,
            "caption_id": batch.caption_ids,
        }

    return inputs
