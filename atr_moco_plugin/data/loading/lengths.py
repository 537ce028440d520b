"""How long clips are, without decoding them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import Decoder, read_header
from atr_moco_plugin.data.audio.source import FileSource, Segment
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.outputs import Outputs
from atr_moco_plugin.data.loading.plan import BatchSettings
from atr_moco_plugin.errors import InputError

BIN_SECONDS = 0.25
"""Clips whose lengths are within one such step count as equally long: sorted to the sample, the
captions of one clip would always be in one batch."""

_FILES_A_JOB = 64


def clip_seconds(dataset: AudioTextDataset, split: str) -> NDArray[np.float32]:
    """Seconds of each clip of a split: what the data set knows, else what headers of files say.

    Args:
        dataset: the data set, with its reader set.
        split: a split's name.

    Returns:
        ``[clips]`` float32; infinite where a file's header cannot be read, which is nothing to stop
        at: the clip is skipped in its turn.

    Raises:
        InputError: if clips are rendered and the data set does not say how long they are.
    """
    seconds: list[float | None] = []
    unknown: list[tuple[int, FileSource]] = []
    for row, clip in enumerate(dataset.clips(split)):
        known = clip.seconds
        if known is None and isinstance(clip.source, Segment):
            known = clip.source.end - clip.source.start
        if known is None:
            if dataset.read is not None:
                raise InputError(
                    f"{dataset.name}: nobody knows how long clip {clip.key!r} is before it is "
                    "rendered; give `Clip.seconds`, or leave bucket_by_length at 0"
                )
            unknown.append((row, clip.source))
        seconds.append(known)
    found = _from_headers([source for _, source in unknown], dataset.reader.decoder)
    for (row, _), value in zip(unknown, found, strict=True):
        seconds[row] = value
    return np.array(seconds, np.float32)


def seconds_in_batches(
    dataset: AudioTextDataset, settings: BatchSettings, outputs: Outputs | None
) -> NDArray[np.float32]:
    """How long each clip of a split is in the batches, once it is cropped.

    Args:
        dataset: the data set, with its reader set.
        settings: what the batches hold.
        outputs: what stands in for clips, captions or both. It says itself how long it is: the
            files may be gone.

    Returns:
        ``[clips]`` float32, at most ``max_seconds``.

    Raises:
        InputError: as :func:`clip_seconds`, or if all that stands in for clips is equally long.
    """
    longest = settings.max_seconds
    if outputs is None or settings.crops is None:
        return clip_seconds(dataset, settings.split).clip(max=longest)
    lengths = outputs.lengths()
    if lengths is None:
        raise InputError(
            f"bucket_by_length is {settings.bucket_by_length}, but the batches hold one vector of "
            "each clip in its place (cache_embeddings), which need no padding: leave "
            "bucket_by_length at 0"
        )
    return (lengths * (longest / max(1, int(lengths.max(initial=0))))).astype(np.float32)


def length_bins(seconds: NDArray[np.float32]) -> NDArray[np.int64]:
    """Lengths to sort by: the number of started :data:`BIN_SECONDS` of each."""
    bins: NDArray[np.int64] = np.ceil(seconds / BIN_SECONDS).astype(np.int64)
    return bins


def _from_headers(sources: Sequence[FileSource], decoder: Decoder) -> Iterator[float]:
    def read(source: FileSource) -> float:
        try:
            frames, rate = read_header(source, decoder)
        except (InputError, OSError):
            return math.inf
        return frames / rate

    jobs = [sources[at : at + _FILES_A_JOB] for at in range(0, len(sources), _FILES_A_JOB)]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for found in pool.map(lambda job: [read(source) for source in job], jobs):
            yield from found
