"""The cache of a split's captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import Tokenize
from atr_moco_plugin.embedding_cache.build import Plan, Ranks, Say, build
from atr_moco_plugin.embedding_cache.content import CaptionContent
from atr_moco_plugin.embedding_cache.encode import probe_text
from atr_moco_plugin.embedding_cache.fingerprint import (
    Fingerprint,
    class_name,
    encoder_settings,
    texts_digest,
    weights_digest,
)
from atr_moco_plugin.embedding_cache.index import Index, items_a_shard
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.embedding_cache.store import OutputStore

_TOKENIZED = 1024
"""Captions that are tokenised at once."""


def open_captions(
    tower: Any,
    dataset: AudioTextDataset,
    split: str,
    tokenize: Tokenize,
    options: CacheOptions,
    stage: Stage,
    *,
    ranks: Ranks | None = None,
    say: Say = print,
) -> OutputStore:
    """The outputs of a split's distinct captions by their texts, written before where they are not
    there.

    Args:
        tower: the text tower, whose encoder is frozen.
        dataset: has the captions.
        split: the split.
        tokenize: the tokenizer.
        options: where outputs are kept, and how they are made.
        stage: what is read of each.
        ranks: the processes, which all call this; ``None`` for one.
        say: told what is written and how much it takes.

    Raises:
        InputError: if the cache is of another run, the disk has no room, or anything cannot be
            encoded or written.
    """
    texts = list(dict.fromkeys(text for clip in dataset.clips(split) for text in clip.captions))
    ids = _token_ids(texts, tokenize)
    made_of: Fingerprint = {
        "encoder": class_name(tower.encoder),
        "weights": weights_digest(tower.encoder),
        **encoder_settings(tower.encoder),
        "pooling": class_name(tower.pooling) if stage.pooled else None,
        "captions": texts_digest(texts),
        "tokenizer": texts_digest(ids),
    }
    width = tower.encoder.width
    size = stage.num_bytes(len(ids), sum(map(len, ids)), width) / len(ids)
    index = Index(
        made_of=made_of,
        stage=stage,
        width=width,
        items=len(texts),
        crops=1,
        items_a_shard=items_a_shard(size),
        probe=probe_text(tower, *tokenize(texts[:1])),
    )
    plan = Plan(options.folder_of("captions", split), "captions", index, texts, size)
    make = CaptionContent(tower, tokenize, texts, options.batch_size)
    return build(plan, make, stage, ranks or Ranks(), say)


def _token_ids(texts: Sequence[str], tokenize: Tokenize) -> list[list[int]]:
    """The valid token ids of each text."""
    found: list[list[int]] = []
    for at in range(0, len(texts), _TOKENIZED):
        ids, mask = tokenize(list(texts[at : at + _TOKENIZED]))
        found += [row[valid].tolist() for row, valid in zip(ids, mask, strict=True)]
    return found
