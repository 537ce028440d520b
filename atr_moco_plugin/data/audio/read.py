"""Audio files to mono float32 at a model's sampling rate, whole or in part, and waveforms to a
bounded length.

The rate belongs to the audio encoder, which publishes it as ``sample_rate``. A file is resampled
once, from its own rate straight to that one.

Long files: evaluation keeps the first samples, training a random run of them; only that part is
decoded. Short files are returned as they are, and padded and masked in a batch, never repeated.
Silence is a sound like any other.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.complete import check_complete
from atr_moco_plugin.data.audio.decode import (
    Decoder,
    opened,
    read_frames,
    read_with_torchcodec,
)
from atr_moco_plugin.data.audio.source import Segment, Source
from atr_moco_plugin.errors import InputError

MIN_SECONDS = 0.175
"""Shortest clip: one patch of BEATs, 16 frames of 25 ms, 10 ms apart."""

_MARGIN = 800
"""Samples at the lower of the two rates that are decoded on either side of a crop, so that the
resampling filter, whose length is a number of them, sees what it would see in the whole file."""


def read_audio(
    source: Source,
    sample_rate: int,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    *,
    decoder: Decoder = "soundfile",
) -> NDArray[np.float32]:
    """Decode audio of any rate, channel count and subtype that the decoder reads.

    Channels are averaged and the result is resampled once (soxr, quality HQ), from the file's rate
    to ``sample_rate``. Samples of a file within full scale are in about ``[-1, 1]``; a float file
    that exceeds it is returned as it is, up to :data:`~.scale.MAX_PEAK`.

    Args:
        source: a WAV, FLAC, Ogg, MP3, ... file, the part of a file that is one, or a segment, which
            is read as a file of its own.
        sample_rate: of the result in Hz, the ``sample_rate`` of the audio encoder.
        samples: the most samples to return; ``None`` returns all. Of a longer file, soundfile
            decodes no more than these (in Ogg and MP3, all that comes before them as well). They
            differ from those of the whole file by rounding errors alone.
        generator: where the start of the part comes from; ``None`` takes the beginning.
        decoder: ``soundfile``, or ``torchcodec``.

    Returns:
        ``[samples]`` float32; the file lasts at least :data:`MIN_SECONDS`.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file cannot be decoded, is truncated (WAV, FLAC, MP3), is too short, has
            NaN or infinite samples or integers that were not scaled in the decoded part, or a
            segment is not in it.
    """
    name = str(source)
    if decoder == "torchcodec":
        whole, rate = read_with_torchcodec(source)
        first, last = _bounds(source, whole.shape[0], rate)
        whole = whole[first:last]
        whole = resample(check_length(whole, rate, name), rate, sample_rate)
        return whole if samples is None else fit_length(whole, samples, generator)
    with opened(source) as file:
        check_complete(file, source)
        rate = file.samplerate
        begin, end = _bounds(source, file.frames, rate)
        total = resampled_length(end - begin, rate, sample_rate)
        longer = samples is not None and total > max(samples, int(MIN_SECONDS * sample_rate))
        if samples is not None and longer and file.seekable():
            start, stop = window(total, samples, generator)
            first, last, before = _span(start, stop, end - begin, rate, sample_rate)
            frames = read_frames(file, source, begin + first, begin + last)
            part = resample(frames, rate, sample_rate)[before:][: stop - start]
            if part.shape[0] == stop - start:
                return part
            # The length was an estimate, as in an MP3 whose header has none, and the file ends
            # before: the crop is taken of what is there, or some epochs would have none.
        to_end = end if isinstance(source, Segment) else None
        whole = check_length(read_frames(file, source, begin, to_end), rate, name)
    whole = resample(whole, rate, sample_rate)
    return whole if samples is None else fit_length(whole, samples, generator)


def _bounds(source: Source, frames: int, rate: int) -> tuple[int, int]:
    """First sample and one after the last of a source in its file: a segment is decoded as if it
    were a file of its own."""
    return source.frames(frames, rate) if isinstance(source, Segment) else (0, frames)


def resample(waveform: NDArray[np.float32], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Resample ``[n]`` from ``rate`` to ``sample_rate`` Hz with soxr: linear phase, flat to 0.91 of
    the lower rate's half, and what that rate cannot hold is below -100 dB."""
    if rate == sample_rate or not waveform.size:
        return waveform
    resampled: NDArray[np.float32] = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    return resampled


def resampled_length(frames: int, rate: int, sample_rate: int) -> int:
    """Samples at ``sample_rate`` Hz of ``frames`` samples at ``rate`` Hz: rounded, half up, as soxr
    does, which divides by the ratio of the rates as a float."""
    return int(frames / (rate / sample_rate) + 0.5)


def _span(start: int, stop: int, frames: int, rate: int, sample_rate: int) -> tuple[int, int, int]:
    """What to decode for output samples ``[start, stop)``.

    It begins where a sample of the file and one of the output fall on the same time, so that the
    resampler's grid is that of the whole file.

    Returns:
        First sample of the file, one after the last, and output samples before ``start``.
    """
    common = gcd(rate, sample_rate)
    ours, theirs = sample_rate // common, rate // common
    # Both grids meet every `ours` samples of the output; the margin is a number of such meetings.
    margin = 0 if rate == sample_rate else -(-_MARGIN // min(ours, theirs))
    begin = max(0, start // ours - margin)
    end = -(-stop // ours) + margin
    return begin * theirs, min(frames, end * theirs), start - begin * ours


def check_length(waveform: NDArray[np.float32], rate: int, name: str) -> NDArray[np.float32]:
    """Return ``waveform`` ``[samples]``, at its own ``rate`` in Hz, if it is long enough to encode.

    Raises:
        InputError: if it is shorter than :data:`MIN_SECONDS`; the message begins with ``name``.
    """
    if too_short(waveform.shape[0], rate):
        raise InputError(
            f"{name}: lasts {waveform.shape[0] / rate:.3f} s, at least {MIN_SECONDS} s is needed; "
            "leave it out"
        )
    return waveform


def too_short(frames: int, rate: int) -> bool:
    """Whether ``frames`` samples at ``rate`` Hz last less than :data:`MIN_SECONDS`. What is not too
    short before resampling is not after it, whatever the rates."""
    return 1000 * frames < round(1000 * MIN_SECONDS) * rate


def window(total: int, samples: int, generator: torch.Generator | None = None) -> tuple[int, int]:
    """Which part of a waveform is kept.

    Args:
        total: its samples.
        samples: the most samples to keep, at least 1.
        generator: where the random start of training comes from; ``None`` starts at 0, which is
            what evaluation does.

    Returns:
        Start and stop; all of a waveform that is not longer than ``samples``.

    Raises:
        InputError: if ``samples`` is less than 1.
    """
    if samples < 1:
        raise InputError(f"samples must be at least 1, not {samples}")
    spare = total - samples
    if spare <= 0:
        return 0, total
    start = 0 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
    return start, start + samples


def fit_length(
    waveform: NDArray[np.float32], samples: int, generator: torch.Generator | None = None
) -> NDArray[np.float32]:
    """Cut a waveform to at most ``samples`` samples; a shorter one is returned as it is.

    Args:
        waveform: ``[n]`` float32.
        samples: as for :func:`window`.
        generator: as for :func:`window`.

    Returns:
        ``[min(n, samples)]`` float32, a view of ``waveform``.

    Raises:
        InputError: if ``samples`` is less than 1.
    """
    start, stop = window(waveform.shape[0], samples, generator)
    return waveform[start:stop]
