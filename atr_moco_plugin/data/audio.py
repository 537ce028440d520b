"""Audio files to 16 kHz mono float32, whole or in part, and waveforms to a bounded length.

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

from atr_moco_plugin.data.decode import (
    Decoder,
    check_complete,
    opened,
    read_frames,
    read_with_torchcodec,
)
from atr_moco_plugin.data.source import Source
from atr_moco_plugin.errors import InputError

SAMPLE_RATE = 16_000
"""Samples a second of every waveform in this package."""

MIN_SAMPLES = 2_800
"""Shortest clip, one patch of BEATs: 16 frames of 25 ms, 10 ms apart (0.175 s)."""

_MARGIN = SAMPLE_RATE // 20
"""Output samples decoded on either side of a crop, so that the resampling filter sees what it would
see in the whole file."""


def read_audio(
    source: Source,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    *,
    decoder: Decoder = "soundfile",
) -> NDArray[np.float32]:
    """Decode audio of any rate, channel count and subtype that the decoder reads.

    Channels are averaged and the result is resampled (soxr, quality HQ). Samples of a file within
    full scale are in about ``[-1, 1]``; a float file that exceeds it is returned as it is.

    Args:
        source: a WAV, FLAC, Ogg, MP3, ... file, or the part of a file that is one.
        samples: the most samples to return; ``None`` returns all. Of a longer file, soundfile
            decodes no more than these (in Ogg and MP3, all that comes before them as well). They
            differ from those of the whole file by rounding errors alone.
        generator: where the start of the part comes from; ``None`` takes the beginning.
        decoder: ``soundfile``, or ``torchcodec``.

    Returns:
        ``[samples]`` float32 at 16 kHz; the file has at least :data:`MIN_SAMPLES`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be decoded, is truncated (WAV and FLAC), has NaN or infinite
            samples in what is decoded of it, or is too short.
    """
    name = str(source)
    if decoder == "torchcodec":
        whole = check_length(to_16_khz(*read_with_torchcodec(source)), name)
        return whole if samples is None else fit_length(whole, samples, generator)
    with opened(source) as file:
        check_complete(file, source)
        rate = file.samplerate
        total = resampled_length(file.frames, rate)
        if samples is None or total <= max(samples, MIN_SAMPLES):
            whole = check_length(to_16_khz(read_frames(file, source), rate), name)
            return whole if samples is None else fit_length(whole, samples, generator)
        start, stop = window(total, samples, generator)
        first, last, before = _span(start, stop, file.frames, rate)
        part = to_16_khz(read_frames(file, source, first, last), rate)[before:][: stop - start]
    if part.shape[0] < min(samples, MIN_SAMPLES):
        raise InputError(
            f"{name}: ends before {start / SAMPLE_RATE:.3f} s, though its header says "
            f"{total / SAMPLE_RATE:.3f} s; fetch it again or leave it out"
        )
    return part


def to_16_khz(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Resample ``[n]`` from ``rate`` Hz with soxr: linear phase, flat to 7.3 kHz, and what 16 kHz
    cannot hold is below -100 dB."""
    if rate == SAMPLE_RATE or not waveform.size:
        return waveform
    resampled: NDArray[np.float32] = soxr.resample(waveform, rate, SAMPLE_RATE, quality="HQ")
    return resampled


def resampled_length(frames: int, rate: int) -> int:
    """Samples at 16 kHz of ``frames`` samples at ``rate`` Hz: rounded, half up, as soxr does."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def _span(start: int, stop: int, frames: int, rate: int) -> tuple[int, int, int]:
    """What to decode for output samples ``[start, stop)``.

    It begins where a sample of the file and one of the output fall on the same time, so that the
    resampler's grid is that of the whole file.

    Returns:
        First sample of the file, one after the last, and output samples before ``start``.
    """
    common = gcd(rate, SAMPLE_RATE)
    ours, theirs = SAMPLE_RATE // common, rate // common
    margin = 0 if rate == SAMPLE_RATE else -(-_MARGIN // ours)
    begin = max(0, start // ours - margin)
    end = -(-stop // ours) + margin
    return begin * theirs, min(frames, end * theirs), start - begin * ours


def check_length(waveform: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return ``waveform`` ``[samples]`` if it is long enough to encode.

    Raises:
        ValueError: if it is shorter than :data:`MIN_SAMPLES`; the message begins with ``name``.
    """
    if waveform.shape[0] < MIN_SAMPLES:
        raise InputError(
            f"{name}: lasts {waveform.shape[0] / SAMPLE_RATE:.3f} s, at least "
            f"{MIN_SAMPLES / SAMPLE_RATE:.3f} s is needed; take it out of the data set"
        )
    return waveform


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
        ValueError: if ``samples`` is less than 1.
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
        ValueError: if ``samples`` is less than 1.
    """
    start, stop = window(waveform.shape[0], samples, generator)
    return waveform[start:stop]
