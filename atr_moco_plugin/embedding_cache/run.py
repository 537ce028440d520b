"""The caches of a whole run, as its configuration asks for them, whatever the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.data.loading.training import LoadingOptions
from atr_moco_plugin.embedding_cache.batch import CachedOutputs, stack
from atr_moco_plugin.embedding_cache.build import Ranks, Say
from atr_moco_plugin.embedding_cache.clips import open_clips
from atr_moco_plugin.embedding_cache.fingerprint import weights_digest
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.store import OutputStore
from atr_moco_plugin.embedding_cache.towers import (
    audio_stage,
    check_frozen,
    is_frozen,
    open_caches,
)
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import AudioTokens


class ClipInputs:
    """Arguments of the audio tower for clips, of a cache; their first crops are their beginnings.

    Args:
        store: of a split's clips.
    """

    def __init__(self, store: OutputStore) -> None:
        self._store = store

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Any]:
        """For B clips ``tokens``, ``pooled`` or both."""
        pooled, states, mask = stack([self._store.get(clip.key) for clip in clips])
        inputs: dict[str, Any] = {}
        if states is not None and mask is not None:
            inputs["tokens"] = AudioTokens(states, mask)
        if pooled is not None:
            inputs["pooled"] = pooled
        return inputs


@dataclass(frozen=True)
class RunCaches:
    """What a run reads in place of audio and captions.

    Attributes:
        outputs: for the training batches.
        evaluated: the clips of evaluated splits, by the names of the splits; a split that is not
            there is read as it is.
    """

    outputs: CachedOutputs
    evaluated: Mapping[str, OutputStore]

    def clip_inputs(self, split: str) -> ClipInputs | None:
        """Arguments of the audio tower for an evaluated split's clips; ``None`` where they are
        read."""
        store = self.evaluated.get(split)
        return None if store is None else ClipInputs(store)

    def unreadable(self, dataset: AudioTextDataset) -> dict[str, dict[str, str]]:
        """By evaluated split, key to reason of each clip that could not be read."""
        return {
            split: {dataset.clips(split)[at].key: reason for at, reason in store.bad().items()}
            for split, store in self.evaluated.items()
        }

    def check_weights(self, model: Any) -> None:
        """Refuse caches of other weights than a model has by now, as after loading a checkpoint.

        Raises:
            InputError: naming the folder.
        """
        for tower, store in (
            (model.audio, self.outputs.clips),
            (model.text, self.outputs.captions),
            *((model.audio, store) for store in self.evaluated.values()),
        ):
            if store is not None and weights_digest(tower.encoder) != store.made_with["weights"]:
                raise InputError(
                    f"{store.folder} was written with other encoder weights than the checkpoint "
                    "has: remove the folder and start with the encoder that the run was begun with"
                )


def check_cache(section: LoadingOptions, model: Any, *, matches: bool) -> None:
    """Refuse a cache of a model without frozen encoders, one that would be wrong after a step,
    batches that hold anything else than pairs of one clip and one caption, and a sorting of vectors
    by their length.

    Args:
        section: of the configuration.
        model: with frozen encoders.
        matches: whether the criterion trains the matching head.

    Raises:
        InputError: naming the key.
    """
    check_frozen(model, crops=section.cache_crops, augments=section.augment is not None)
    sorts = section.bucket_by_length
    if sorts and is_frozen(model.audio) and not audio_stage(model.audio, matches=matches).tokens:
        raise InputError(
            f"`dataset.bucket_by_length` is {sorts}, but `dataset.cache_embeddings` keeps one "
            "vector of each clip here, which needs no padding: leave bucket_by_length out"
        )
    mixes = section.mix is not None
    if mixes or section.captions_per_clip > 1:
        raise InputError(
            f"`dataset.{'mix' if mixes else 'captions_per_clip'}` makes batches of something else "
            "than pairs of one clip and one caption, which are all that `dataset.cache_embeddings` "
            "keeps: leave one of the two out"
        )


def run_caches(
    model: Any,
    dataset: AudioTextDataset,
    to_tokens: Tokenize,
    section: LoadingOptions,
    *,
    max_seconds: float,
    evaluated: Iterable[str],
    evaluated_seconds: float,
    matches: bool,
    batch_size: int,
    ranks: Ranks | None = None,
    say: Say = print,
) -> RunCaches | None:
    """Open the caches of a run, and write before what is missing of them.

    Args:
        model: with frozen encoders, on its device.
        dataset: where clips come from, at the model's rate.
        to_tokens: the tokenizer.
        section: of the configuration.
        max_seconds: longer training clips are cropped to this.
        evaluated: names of the splits that the run evaluates.
        evaluated_seconds: an evaluated clip is whole up to this length.
        matches: whether the criterion trains the matching head.
        batch_size: clips or captions a forward pass.
        ranks: the processes, which all call this; ``None`` for one.
        say: told what is written and how much it takes.

    Returns:
        ``None`` without ``cache_embeddings``.

    Raises:
        InputError: if nothing is frozen, an option does not go with a cache, or as
            :func:`~atr_moco_plugin.embedding_cache.towers.open_caches` does.
    """
    if section.cache_embeddings is None:
        return None
    check_cache(section, model, matches=matches)

    def options(crops: int) -> CacheOptions:
        return CacheOptions(
            folder=section.cache_embeddings or Path(),
            crops=crops,
            batch_size=batch_size,
            num_workers=section.num_workers,
        )

    outputs = open_caches(
        model, dataset, section.train_split, to_tokens, options(section.cache_crops),
        max_seconds=max_seconds, matches=matches, ranks=ranks, say=say,
    )  # fmt: skip
    stores: dict[str, OutputStore] = {}
    for split in evaluated if is_frozen(model.audio) else ():
        if split != section.train_split:
            stores[split] = open_clips(
                model.audio, dataset, split, options(1), audio_stage(model.audio, matches=matches),
                max_seconds=evaluated_seconds, ranks=ranks, say=say,
            )  # fmt: skip
        elif outputs.clips is not None and evaluated_seconds == max_seconds:
            stores[split] = outputs.clips
    return RunCaches(outputs, stores)
