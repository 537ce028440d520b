"""The cache of a split's clips."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.lengths import clip_seconds
from atr_moco_plugin.data.loading.plan import max_samples
from atr_moco_plugin.embedding_cache.audio_files import has_changed
from atr_moco_plugin.embedding_cache.build import Plan, Ranks, Say, build
from atr_moco_plugin.embedding_cache.content import ClipContent
from atr_moco_plugin.embedding_cache.encode import count_tokens, probe_audio, probe_seconds
from atr_moco_plugin.embedding_cache.fingerprint import (
    Fingerprint,
    class_name,
    clips_digest,
    encoder_settings,
    weights_digest,
)
from atr_moco_plugin.embedding_cache.index import Index, items_a_shard, shard_path
from atr_moco_plugin.embedding_cache.options import CacheOptions
from atr_moco_plugin.embedding_cache.outputs import Stage
from atr_moco_plugin.embedding_cache.shards import Shard
from atr_moco_plugin.embedding_cache.store import OutputStore
from atr_moco_plugin.errors import InputError

_THREADS = 16


def open_clips(
    tower: Any,
    dataset: AudioTextDataset,
    split: str,
    options: CacheOptions,
    stage: Stage,
    *,
    max_seconds: float,
    ranks: Ranks | None = None,
    say: Say = print,
) -> OutputStore:
    """The outputs of a split's clips by their keys, written before where they are not there.

    Args:
        tower: the audio tower, whose encoder is frozen.
        dataset: where clips come from, at the encoder's rate.
        split: the split.
        options: where outputs are kept, and how they are made.
        stage: what is read of each.
        max_seconds: longer clips are cropped to this.
        ranks: the processes, which all call this; ``None`` for one.
        say: told what is written and how much it takes.

    Raises:
        InputError: if the cache is of another run, a file has changed since, the disk has no room,
            or anything cannot be encoded or written.
    """
    clips, rate = dataset.clips(split), dataset.sample_rate
    folder, samples = options.folder_of("clips", split), max_samples(max_seconds, rate)
    made_of: Fingerprint = {
        "encoder": class_name(tower.encoder),
        "weights": weights_digest(tower.encoder),
        **encoder_settings(tower.encoder),
        "pooling": class_name(tower.pooling) if stage.pooled else None,
        "clips": clips_digest(dataset, split),
        "max_seconds": float(max_seconds),
        "sample_rate": rate,
        "decoder": dataset.reader.decoder,
        "rounded": dataset.reader.cache_dir is not None,
        "crops": options.crops,
        "seed": options.seed if options.crops > 1 else None,
    }
    size = _bytes_a_clip(tower, dataset, split, stage, max_seconds, options.crops)
    index = Index(
        made_of=made_of,
        stage=stage,
        width=tower.encoder.width,
        items=len(clips),
        crops=options.crops,
        items_a_shard=items_a_shard(size),
        probe=probe_audio(tower),
    )
    make = ClipContent(
        tower=tower,
        dataset=dataset,
        clips=clips,
        samples=samples,
        crops=options.crops,
        seed=options.seed,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )

    def outdated(index: Index, present: Sequence[int]) -> list[int]:
        return [
            number
            for number in present
            if _look_at(folder, number, [clips[item] for item in index.items_of(number)], make)
        ]

    plan = Plan(folder, "clips", index, [clip.key for clip in clips], size, outdated)
    return build(plan, make, stage, ranks or Ranks(), say)


def _bytes_a_clip(
    tower: Any, dataset: AudioTextDataset, split: str, stage: Stage, max_seconds: float, crops: int
) -> float:
    """About what the outputs of a clip take, by the lengths of all clips where they are known."""
    clips = len(dataset.clips(split))
    try:
        seconds = clip_seconds(dataset, split)
    except InputError:  # rendered clips of unknown lengths
        seconds = np.full(clips, max_seconds, np.float32)
    rows = np.where(seconds < max_seconds, 1, crops)  # a short clip has one crop
    # The longest clip and not `max_seconds`, for which there may be no memory. A clip whose header
    # cannot be read is of no length, and skipped.
    longest = float(seconds[np.isfinite(seconds)].max(initial=probe_seconds(tower.encoder)))
    longest = min(max_seconds, longest)
    whole = max_samples(longest, dataset.sample_rate)
    tokens = count_tokens(tower, whole) if stage.tokens else 0
    in_all = float((np.ceil(seconds.clip(max=longest) / longest * tokens) * rows).sum())
    return stage.num_bytes(int(rows.sum()), round(in_all), tower.encoder.width) / clips


def _look_at(folder: Path, number: int, clips: Sequence[Clip], make: ClipContent) -> bool:
    """Whether a shard is written again, since a clip that could not be read can be by now.

    Raises:
        InputError: if a file has changed since the shard was written.
    """
    shard = Shard(shard_path(folder, number))
    places = list(shard.files)
    with ThreadPoolExecutor(_THREADS) as pool:
        changed = pool.map(lambda at: has_changed(clips[at].source, shard.files[at]), places)
        for place, different in zip(places, changed, strict=True):
            if different:
                raise InputError(
                    f"clip {clips[place].key!r}: its audio file {clips[place].source} has changed "
                    f"since {folder} was written: remove that folder, and the next run writes it "
                    "again"
                )
    return any(make.is_readable(clips[place]) for place in shard.bad)
