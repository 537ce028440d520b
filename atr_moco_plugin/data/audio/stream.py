"""Long recordings in windows, decoded and resampled block after block.

A recording of ten hours takes no more memory than a window and a block. The windows are those that
would be cut from :func:`~atr_moco_plugin.data.audio.read.read_audio` of the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.complete import check_complete
from atr_moco_plugin.data.audio.decode import frame_blocks, opened
from atr_moco_plugin.data.audio.read import check_length, too_short
from atr_moco_plugin.data.audio.source import Segment, Source


class AudioWindow(NamedTuple):
    """A stretch of a recording.

    Attributes:
        start: where it begins, in seconds.
        end: where it ends, in seconds.
        waveform: ``[n]`` float32 mono.
    """

    start: float
    end: float
    waveform: NDArray[np.float32]


def read_windows(source: Source, sample_rate: int, size: int, hop: int) -> Iterator[AudioWindow]:
    """Decode audio of any rate and channel count, as ``read_audio`` does, in windows.

    Args:
        source: as for :func:`~atr_moco_plugin.data.audio.read.read_audio`; read with soundfile.
        sample_rate: of the windows in Hz.
        size: samples of a window, see :func:`cut_windows`.
        hop: samples from the start of a window to the start of the next.

    Yields:
        Windows in order, at least one.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file cannot be decoded, is truncated (WAV, FLAC, MP3), is too short, has
            NaN or infinite samples or integers that were not scaled, or a segment is not in it;
            perhaps after some windows.
    """
    with opened(source) as file:
        check_complete(file, source)
        rate = file.samplerate
        begin, end = 0, None
        if isinstance(source, Segment):
            begin, end = source.frames(file.frames, rate)
        blocks = _long_enough(frame_blocks(file, source, begin, end), rate, str(source))
        yield from cut_windows(resampled_blocks(blocks, rate, sample_rate), sample_rate, size, hop)


def cut_windows(
    blocks: Iterable[NDArray[np.float32]], sample_rate: int, size: int, hop: int
) -> Iterator[AudioWindow]:
    """Cut a waveform that comes in blocks into windows.

    For example 25 s with windows of 10 s and a hop of 10 s give 0 to 10, 10 to 20 and 15 to 25: the
    last window ends with the recording. A recording that is no longer than a window is one window
    of its own length.

    Args:
        blocks: ``[n]`` float32 each.
        sample_rate: theirs in Hz.
        size: samples of a window, at least 1.
        hop: samples from the start of a window to the start of the next, 1 to ``size``.

    Yields:
        Windows in order; none for a waveform without samples.
    """
    kept: NDArray[np.float32] = np.zeros(0, np.float32)
    first = 0  # where the kept samples begin in the recording
    start = 0  # of the next window
    for block in blocks:
        kept = np.concatenate([kept, block]) if len(kept) else block
        while start + size <= first + len(kept):
            yield _window(kept, first, start, size, sample_rate)
            start += hop
        # The last window may begin before the next one would.
        spare = min(start, first + len(kept) - size) - first
        if spare > 0:
            kept, first = kept[spare:].copy(), first + spare
    total = first + len(kept)
    # Otherwise the window before this one has ended with the recording.
    if total and (start == 0 or start - hop + size < total):
        start = max(0, total - size)
        yield _window(kept, first, start, total - start, sample_rate)


def _window(kept: NDArray[np.float32], first: int, start: int, size: int, rate: int) -> AudioWindow:
    waveform = kept[start - first : start - first + size]
    if len(waveform) < len(kept):  # most recordings are one window, which need no copy
        waveform = waveform.copy()
    return AudioWindow(start / rate, (start + size) / rate, waveform)


def _long_enough(
    blocks: Iterator[NDArray[np.float32]], rate: int, name: str
) -> Iterator[NDArray[np.float32]]:
    """The blocks, refused where they are too short together."""
    head = next(blocks, np.zeros(0, np.float32))
    while too_short(len(head), rate) and (block := next(blocks, None)) is not None:
        head = np.concatenate([head, block])
    yield check_length(head, rate, name)
    yield from blocks


def resampled_blocks(
    blocks: Iterable[NDArray[np.float32]], rate: int, sample_rate: int
) -> Iterator[NDArray[np.float32]]:
    """As :func:`~atr_moco_plugin.data.audio.read.resample` of all blocks together."""
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
