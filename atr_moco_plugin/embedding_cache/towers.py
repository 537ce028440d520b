"""The caches of a run: which towers stand still, and what is kept of them.

For example, with a model whose audio encoder is frozen::

    options = CacheOptions(folder=Path("cache"), crops=4)
    outputs = open_caches(
        model, dataset, "train", tokenize, options, max_seconds=10.0, matches=False
    )
    loader = PairLoader(dataset, "train", tokenize, ..., outputs=outputs)
"""

from __future__ import annotations

from typing import Any

from torch import nn

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.embedding_cache.batch import CachedOutputs
from atr_moco_plugin.embedding_cache.build import Ranks, Say
from atr_moco_plugin.embedding_cache.captions import open_captions
from atr_moco_plugin.embedding_cache.clips import open_clips
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.errors import InputError


def is_frozen(tower: Any) -> bool:
    """Whether a tower's encoder stands still, all of it."""
    return getattr(tower, "frozen", "none") == "all"


def audio_stage(tower: Any, *, matches: bool) -> Stage:
    """What is kept of clips: tokens for a matching head or a pooling that trains, else the pooled
    vector alone, which is a few hundred times smaller."""
    trained = _trains(tower.pooling)
    return Stage(pooled=not trained, tokens=matches or trained)


def text_stage(model: Any, *, matches: bool) -> Stage:
    """What is kept of captions: tokens too for a head that reads their states."""
    trained = _trains(model.text.pooling)
    reads = matches and getattr(model, "needs_text_states", True)
    return Stage(pooled=not trained, tokens=reads or trained)


def _trains(pooling: nn.Module) -> bool:
    return any(True for _ in pooling.parameters())


def check_frozen(model: Any, *, crops: int = 1, augments: bool = False) -> None:
    """Refuse a model of which nothing can be cached, and what would change a clip in each step.

    Args:
        model: the model.
        crops: ``dataset.cache_crops``.
        augments: whether training waveforms are changed.

    Raises:
        InputError: naming the keys.
    """
    audio = is_frozen(model.audio)
    if not audio and not is_frozen(model.text):
        raise InputError(
            "`dataset.cache_embeddings` keeps the outputs of encoders that stand still, but none "
            "does: set `model.config_overrides.audio.freeze=all` or "
            "`model.config_overrides.text.freeze=all`, without an adapter, or leave it out"
        )
    if not audio and crops > 1:
        raise InputError(
            f"`dataset.cache_crops` is {crops}, but the audio encoder trains and no clip is "
            "cached: set `model.config_overrides.audio.freeze=all`, or leave it out"
        )
    if audio:
        options = ("spec_augment", "patch_dropout")
        given = [x for x in options if getattr(model.audio, x, None) is not None]
        changes = [f"model.config_overrides.{x}" for x in given] + ["dataset.augment"] * augments
        if changes:
            raise InputError(
                f"`{changes[0]}` changes what the audio encoder makes of a clip in every step, but "
                "`dataset.cache_embeddings` keeps it once for all: leave one of the two out"
            )


def open_caches(
    model: Any,
    dataset: AudioTextDataset,
    split: str,
    tokenize: Tokenize,
    options: CacheOptions,
    *,
    max_seconds: float,
    matches: bool,
    ranks: Ranks | None = None,
    say: Say = print,
) -> CachedOutputs:
    """The outputs of a split for training, written before where they are not there.

    Args:
        model: a :class:`~atr_moco_plugin.model.RetrievalModel`; one encoder or both are frozen.
        dataset: where clips come from, at the model's rate.
        split: the split.
        tokenize: the tokenizer.
        options: where outputs are kept, and how they are made.
        max_seconds: longer clips are cropped to this.
        matches: whether the criterion trains the matching head, which reads tokens.
        ranks: the processes, which all call this; ``None`` for one.
        say: told what is written and how much it takes.

    Raises:
        InputError: if no encoder is frozen, the cache is of another run, a file has changed since,
            the disk has no room, or anything cannot be encoded or written.
    """
    check_frozen(model, crops=options.crops)
    clips = captions = None
    if is_frozen(model.audio):
        stage = audio_stage(model.audio, matches=matches)
        clips = open_clips(
            model.audio, dataset, split, options, stage,
            max_seconds=max_seconds, ranks=ranks, say=say,
        )  # fmt: skip
    if is_frozen(model.text):
        stage = text_stage(model, matches=matches)
        captions = open_captions(
            model.text, dataset, split, tokenize, options, stage, ranks=ranks, say=say
        )
    return CachedOutputs(clips, captions)
