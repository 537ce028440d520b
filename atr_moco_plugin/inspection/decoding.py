"""The audio of a clip as it is in its file: all channels at its own rate, block after block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.complete import check_complete
from atr_moco_plugin.data.audio.decode import Decoder, frame_blocks, opened, read_with_torchcodec
from atr_moco_plugin.data.audio.source import Segment, Source, unusable
from atr_moco_plugin.data.audio.stream import resampled_blocks
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset

# The largest sample that a type can hold; floats are made of 16 bits as often as not.
_LARGEST = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 0.9803, "ALAW": 0.9843}
_LARGEST_OF_16_BITS = 32766.5 / 32768


class Decoded(NamedTuple):
    """A clip that is being decoded.

    Attributes:
        blocks: ``[n, channels]`` float32 each, all of them finite.
        rate: in Hz.
        full_scale: the largest sample that its type can hold, with a little room below it.
    """

    blocks: Iterable[NDArray[np.float32]]
    rate: int
    full_scale: float


@contextmanager
def decoded(
    dataset: AudioTextDataset, clip: Clip, decoder: Decoder = "soundfile"
) -> Iterator[Decoded]:
    """Decode a clip of a data set, whichever way it comes to its audio.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it cannot be decoded, is truncated, has NaN or infinite samples, or a segment
            is not in its file; within the ``with`` block too.
    """
    source = clip.source
    if dataset.read is not None:
        yield Decoded([dataset.read(clip)[:, None]], dataset.read_rate, _LARGEST_OF_16_BITS)
    elif decoder == "torchcodec":
        frames, rate = read_with_torchcodec(source, _all_channels)
        first, last = source.frames(len(frames), rate) if isinstance(source, Segment) else (0, None)
        yield Decoded([frames[first:last]], rate, _LARGEST_OF_16_BITS)
    else:
        with opened(source) as file:
            check_complete(file, source)
            first, last = 0, None
            if isinstance(source, Segment):
                first, last = source.frames(file.frames, file.samplerate)
            blocks = frame_blocks(file, source, first, last, _all_channels)
            full_scale = _LARGEST.get(file.subtype, _LARGEST_OF_16_BITS)
            yield Decoded(blocks, file.samplerate, full_scale)


def read_stretch(
    dataset: AudioTextDataset,
    clip: Clip,
    sample_rate: int,
    start: int,
    stop: int,
    decoder: Decoder = "soundfile",
) -> NDArray[np.float32]:
    """Samples ``start`` to ``stop`` of a clip, averaged over its channels, at a rate.

    Returns:
        ``[stop - start]`` float32, with zeros for what is before or behind the clip.

    Raises:
        FileNotFoundError, InputError: as :func:`decoded`.
    """
    found = np.zeros(stop - start, np.float32)
    position = 0
    with decoded(dataset, clip, decoder) as audio:
        mono = (average(block) for block in audio.blocks)
        for block in resampled_blocks(mono, audio.rate, sample_rate):
            begin, end = max(start, position), min(stop, position + len(block))
            if begin < end:
                found[begin - start : end - start] = block[begin - position : end - position]
            position += len(block)
            if position >= stop:
                break
    return found


def average(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[n, channels]`` to ``[n]``."""
    return np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))


def _all_channels(frames: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
    if not np.isfinite(frames).all():
        raise unusable(source, "has NaN or infinite samples")
    return frames
