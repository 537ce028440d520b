"""Batches of audio and captions for a ``ClapModel``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import ClapFeatureExtractor, PreTrainedTokenizerBase

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.hosts.transformers.data.dataset import PairDataset
from atr_moco_plugin.hosts.transformers.data.features import evaluation_features, is_longer
from atr_moco_plugin.hosts.transformers.data.items import NO_ITEM, Item, read_item
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.model.clap import clip_features
from atr_moco_plugin.text.checks import check_tokenizer


class ClapCollator:
    """Turns examples into a batch for a ``ClapModel``.

    A new collator is for evaluation: it draws nothing at random, so that a clip has the same
    features in every batch. :meth:`for_training` makes one that crops long clips at random. Give
    ``Trainer`` the plain collator:
    :class:`~atr_moco_plugin.hosts.transformers.MocoCallback` takes the training form of it for the
    training batches.

    A clip whose audio or captions cannot be used is left out, and named once in a warning.

    Args:
        tokenizer: the model's tokenizer; captions are padded on the right, whatever it says.
        feature_extractor: the model's feature extractor.
        max_tokens: longer captions are cut.
        eval_windows: in evaluation a longer clip is cut into at most so many windows, and their
            embeddings are averaged; 1 takes its beginning.

    Attributes:
        tokenizer: as given.
        feature_extractor: as given.
        max_tokens: as given.

    Raises:
        InputError: ``eval_windows`` is below 1, or above 1 with an extractor whose truncation is
            ``fusion``: its features already have the whole clip in them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: ClapFeatureExtractor,
        *,
        max_tokens: int = 77,
        eval_windows: int = 1,
    ) -> None:
        if eval_windows < 1:
            raise InputError(f"eval_windows is {eval_windows}, expected at least 1.")
        if eval_windows > 1 and feature_extractor.truncation == "fusion":
            raise InputError(
                f"eval_windows is {eval_windows}, but with the truncation 'fusion' the features "
                "have the whole clip in them: leave eval_windows out."
            )
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.max_tokens = max_tokens
        self._eval_windows = eval_windows
        self._seed = 0
        # None in evaluation. In shared memory, so that running worker processes see it change.
        self._epoch: Tensor | None = None
        self._warned: set[int] = set()  # shared by all forms of this collator in a process

    def check(
        self,
        text_encoder: nn.Module,
        datasets: Sequence[object] = (),
        *,
        allow_unknown: bool = False,
    ) -> None:
        """Refuse a tokenizer or ``max_tokens`` that does not fit the model's text encoder or the
        captions, see :mod:`atr_moco_plugin.text.checks`.

        Args:
            text_encoder: the model's text encoder.
            datasets: each :class:`PairDataset` among them loses captions without a token.
            allow_unknown: warn where the tokenizer does not know more than half of the captions.

        Raises:
            InputError: one sentence with the option to change.
        """
        check_tokenizer(
            self.tokenizer, text_encoder, self.max_tokens, tokens_key="ClapCollator.max_tokens"
        )
        for dataset in datasets:
            if isinstance(dataset, PairDataset):
                dataset.check_captions(self.tokenizer, self.max_tokens, allow_unknown=allow_unknown)

    def for_training(self, seed: int = 0) -> ClapCollator:
        """A copy that crops longer clips at random and draws one of several captions.

        Both follow from the seed, the epoch of :meth:`set_epoch`, the clip and the caption. They
        do not depend on the batch, on the worker process, or on where a run was resumed.

        Args:
            seed: of the draws; a collator that is for training already keeps its own.
        """
        if self._epoch is not None:
            return self
        other = copy.copy(self)
        other._seed = seed
        other._epoch = torch.zeros((), dtype=torch.int64)
        other._epoch.share_memory_()
        return other

    def for_evaluation(self) -> ClapCollator:
        """A copy that draws nothing at random."""
        other = copy.copy(self)
        other._epoch = None
        return other

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch crops and captions are drawn for; without effect in evaluation.

        Args:
            epoch: from 0.
        """
        if self._epoch is not None:
            self._epoch.fill_(epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            examples: B mappings, each with

                * ``audio``: a waveform at the extractor's rate, or any other form that
                  :func:`~atr_moco_plugin.data.audio.waveform.as_waveform` reads;
                * ``caption`` and ``caption_id``: a string and its integer, or lists of both, of
                  which training draws one and evaluation takes all;
                * ``clip_id``: an integer;
                * optionally ``sampling_rate``, the rate that ``audio`` was read at, which must be
                  the extractor's; ``name``, the clip's name in warnings; and ``problem``, a
                  sentence on why the clip has no audio.

        Returns:
            ``input_features`` ``[B, crops, frames, mels]`` float32, ``is_longer`` ``[B, 1]`` bool,
            ``input_ids`` and ``attention_mask`` ``[B, L]`` int64, ``clip_id`` and ``caption_id``
            ``[B]`` int64. Also:

            * in training ``random_crop`` ``[B]`` bool, the clips of which only a part is in the
              features; bad clips have no row;
            * in evaluation, where an example has a list of captions, ``input_ids`` and
              ``attention_mask`` are ``[B, K, L]`` and ``caption_id`` ``[B, K]``, padded with
              :data:`~atr_moco_plugin.hosts.transformers.data.items.NO_ITEM`, which is also the
              clip id of a bad clip; with ``eval_windows`` above 1, ``input_features`` are
              ``[B, W, crops, frames, mels]``, ``is_longer`` ``[B, W, 1]``, and ``windows`` ``[B]``
              int64 says how many of the W windows a clip has;
            * ``skipped_clip_id`` int64, the bad clips, where there are any.

        Raises:
            InputError: a field is missing or has another form, or no clip can be used.
        """
        rate = self.feature_extractor.sampling_rate
        items = [read_item(example, rate) for example in examples]
        bad = [item for item in items if item.problem]
        if len(bad) == len(items):
            raise InputError(
                f"No clip of a batch of {len(items)} can be used, the first, {bad[0].name}, "
                f"because {bad[0].problem}."
            )
        self._warn_of(items)
        if self._epoch is None:
            batch = self._evaluation_batch(items)
        else:
            good = [item for item in items if not item.problem]
            batch = self._training_batch(good, int(self._epoch))
        if bad:
            batch["skipped_clip_id"] = torch.tensor([item.clip_id for item in bad])
        return batch

    def _training_batch(self, items: Sequence[Item], epoch: int) -> dict[str, Tensor]:
        extractor = self.feature_extractor
        features, texts, caption_ids = [], [], []
        for item in items:
            digest = stable_digest("caption", self._seed, epoch, item.clip_id)
            text, caption_id = item.captions[digest % len(item.captions)]
            crop = stable_digest("crop", self._seed, epoch, item.clip_id, caption_id) % 2**32
            features.append(clip_features(extractor, item.waveform, crop))
            texts.append(text)
            caption_ids.append(caption_id)
        longer = [is_longer(extractor, len(item.waveform)) for item in items]
        random_crop = torch.tensor(longer)
        if extractor.truncation == "fusion" and not any(longer):
            # As the extractor does; otherwise the weights that fuse crops would have no gradient.
            longer[0] = True
        return {
            "input_features": torch.stack(features),
            "is_longer": torch.tensor(longer)[:, None],
            **self._tokens(texts),
            "clip_id": torch.tensor([item.clip_id for item in items]),
            "caption_id": torch.tensor(caption_ids),
            "random_crop": random_crop,
        }

    def _evaluation_batch(self, items: Sequence[Item]) -> dict[str, Tensor]:
        extractor = self.feature_extractor
        silence = np.zeros(int(extractor.nb_max_samples), np.float32)
        waveforms = [silence if item.problem else item.waveform for item in items]
        features = [evaluation_features(extractor, x, self._eval_windows) for x in waveforms]
        longer = torch.tensor([is_longer(extractor, len(x)) for x in waveforms])[:, None]
        clip_ids = torch.tensor([NO_ITEM if item.problem else item.clip_id for item in items])
        if self._eval_windows == 1:
            audio = {"input_features": torch.cat(features), "is_longer": longer}
        else:
            padded = pad_sequence(features, batch_first=True)
            audio = {
                "input_features": padded,
                "is_longer": longer[:, None].expand(-1, padded.shape[1], -1),
                "windows": torch.tensor([len(x) for x in features]),
            }
        return {**audio, **self._all_captions(items), "clip_id": clip_ids}

    def _all_captions(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Every caption of the examples: ``[B, ...]`` where each has one, else ``[B, K, ...]``."""
        ids = [
            torch.tensor([number for _, number in item.captions], dtype=torch.int64)
            for item in items
        ]
        caption_ids = pad_sequence(ids, batch_first=True, padding_value=NO_ITEM)
        present = caption_ids != NO_ITEM
        batch = {"caption_id": caption_ids}
        for name, values in self._tokens([x for item in items for x, _ in item.captions]).items():
            batch[name] = values.new_zeros(*present.shape, values.shape[1])
            batch[name][present] = values
        if any(item.listed for item in items):
            return batch
        return {name: x[:, 0] for name, x in batch.items()}

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(
            texts,
            padding=True,
            padding_side="right",  # towers take the first token, whatever its files ask for
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def _warn_of(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.clip_id in self._warned or not (item.problem or item.wordless):
                continue
            self._warned.add(item.clip_id)
            if item.problem:
                fault = f"is left out: {item.problem}"
            else:
                fault = f"has {item.wordless} captions without a word, which are left out"
            warnings.warn(f"The clip {item.name} {fault}.", stacklevel=3)
