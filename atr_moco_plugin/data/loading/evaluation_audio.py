"""Audio of an evaluation: every clip in order, decoded ahead by threads.

Threads are enough, since soundfile and soxr let others run meanwhile, and they share the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from torch import Tensor

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.loading.batch import pad_waveforms
from atr_moco_plugin.data.loading.plan import max_samples
from atr_moco_plugin.errors import InputError

T = TypeVar("T")


def iterate_audio(
    dataset: AudioTextDataset,
    clips: Sequence[Clip],
    batch_size: int,
    max_seconds: float,
    num_workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode clips in order for evaluation: the same samples each time, whatever the batch size.

    A clip is whole up to ``max_seconds``; a longer one keeps its first ``max_seconds``. A shorter
    one is padded with zeros that its length leaves out, and never repeated.

    Args:
        dataset: where clips come from, at its ``sample_rate``.
        clips: the clips to decode.
        batch_size: clips a batch.
        max_seconds: longest waveform.
        num_workers: threads that decode ahead, at most one batch and one clip each; 0 decodes when
            a batch is asked for.

    Yields:
        ``(waveforms [B, samples] float32, lengths [B] int64)``; the last B may be smaller.

    Raises:
        FileNotFoundError, InputError: if a clip cannot be read, in its turn: an evaluation skips
            nothing.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if num_workers < 0:
        raise InputError(f"num_workers must be at least 0, not {num_workers}")
    samples = max_samples(max_seconds, dataset.sample_rate)
    waveforms = map_ahead(
        lambda clip: dataset.load(clip, samples), clips, num_workers, ahead=batch_size
    )
    while chosen := list(islice(waveforms, batch_size)):
        yield pad_waveforms(chosen)


def map_ahead(
    function: Callable[[Clip], T], clips: Iterable[Clip], num_workers: int, *, ahead: int
) -> Iterator[T]:
    """``function`` of each clip in order, computed ahead by threads.

    Args:
        function: called with one clip; its error is raised in the clip's turn.
        clips: its arguments.
        num_workers: threads; 0 calls ``function`` when a result is asked for.
        ahead: results that may wait, besides one a thread.
    """
    if num_workers == 0:
        yield from map(function, clips)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    try:
        pending: deque[Future[T]] = deque()
        for clip in clips:
            if len(pending) == ahead + num_workers:
                yield pending.popleft().result()
            pending.append(pool.submit(function, clip))
        while pending:
            yield pending.popleft().result()
    finally:
        # If the caller stops early, nothing else is begun.
        pool.shutdown(wait=True, cancel_futures=True)
