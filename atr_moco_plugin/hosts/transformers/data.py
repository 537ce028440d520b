"""Batches of waveforms and captions for a ``ClapModel``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import ClapFeatureExtractor, PreTrainedTokenizerBase

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.reader import AudioReader
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.safety.names import name_clips_of

_FIELDS = ("audio", "caption", "clip_id", "caption_id")


class PairDataset(Dataset[dict[str, Any]]):
    """All (clip, caption) pairs of a split of this package's data sets, as :class:`ClapCollator`
    takes them.

    Args:
        dataset: an open data set, from :mod:`atr_moco_plugin.data`.
        split: name of the split.
        sample_rate: what the feature extractor works at; files are read at it.

    Raises:
        ValueError: there is no such split, or the data set is read at another rate already.
    """

    def __init__(self, dataset: AudioTextDataset, split: str, sample_rate: int) -> None:
        self._dataset = dataset.read_with(AudioReader(sample_rate))
        self._split = split
        self._pairs = [
            (clip, caption, caption_id)
            for clip in dataset.clips(split)
            for caption, caption_id in zip(clip.captions, clip.caption_ids, strict=True)
        ]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    def fingerprint(self) -> str:
        """Digest of the data set's content, see
        :meth:`~atr_moco_plugin.data.dataset.AudioTextDataset.fingerprint`."""
        return self._dataset.fingerprint()

    def name_clips(self, ids: Sequence[int]) -> Mapping[int, str]:
        """What the clips with these ids are called in the data set."""
        return name_clips_of(self._dataset, self._split)(ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``audio`` (``[samples]`` float32), ``caption``, ``clip_id`` and ``caption_id``."""
        clip, caption, caption_id = self._pairs[index]
        audio = self._dataset.load(clip)
        clip_id = self._dataset.clip_id(clip)
        return {"audio": audio, "caption": caption, "clip_id": clip_id, "caption_id": caption_id}


class ClapCollator:
    """Turns (waveform, caption) pairs into a batch for a ``ClapModel``.

    Args:
        tokenizer: of the model, padding on the right.
        feature_extractor: of the model. Cropping of longer clips draws from numpy's global random
            state, which ``Trainer`` seeds, saves and restores.
        max_tokens: longer captions are cut.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: ClapFeatureExtractor,
        *,
        max_tokens: int = 77,
    ) -> None:
        self._tokenizer = tokenizer
        self._feature_extractor = feature_extractor
        self._max_tokens = max_tokens

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            examples: B mappings with ``audio`` (``[samples]`` float at the extractor's rate),
                ``caption`` and the integers ``clip_id`` and ``caption_id``.

        Returns:
            ``input_features`` ``[B, crops, frames, mels]`` float32, ``is_longer`` ``[B, 1]`` bool,
            ``input_ids`` and ``attention_mask`` ``[B, L]`` int64, ``clip_id`` and ``caption_id``
            ``[B]`` int64.

        Raises:
            ValueError: a field is missing.
        """
        for name in _FIELDS:
            if any(name not in example for example in examples):
                raise InputError(
                    f"An example has no {name!r}: ClapCollator needs {', '.join(_FIELDS)}. If the "
                    "data set has it, Trainer dropped the column: pass **TRAINING_ARGUMENTS."
                )
        text = self._tokenizer(
            [example["caption"] for example in examples],
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        audio = self._feature_extractor(
            [np.asarray(example["audio"], dtype=np.float32) for example in examples],
            sampling_rate=self._feature_extractor.sampling_rate,
            return_tensors="pt",
        )
        return {
            "input_features": audio["input_features"].float(),
            "is_longer": audio["is_longer"],
            "input_ids": text["input_ids"],
            "attention_mask": text["attention_mask"],
            **{
                name: torch.tensor([int(example[name]) for example in examples])
                for name in ("clip_id", "caption_id")
            },
        }
