"""What one hears and sees of a hit: its window with some seconds around it, as WAV and as PNG.

Sounds are cut at their own rate, not at the model's, since people listen to them.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import opened
from atr_moco_plugin.data.audio.read import resample
from atr_moco_plugin.data.audio.source import Segment, Source, unusable

BEFORE, AFTER = 2.0, 4.0
"""Seconds of the recording that are cut before and after a window."""

MAX_SECONDS = 60.0
"""Longest cut, whatever the length of a window."""

PLAYABLE = (8_000, 96_000)
"""Rates in Hz that every browser plays; others are resampled to :data:`USUAL_RATE`."""

USUAL_RATE = 48_000


class Cut(NamedTuple):
    """A part of a recording.

    Attributes:
        start: where it begins, in seconds of the recording.
        end: where it ends.
    """

    start: float
    end: float


def around(start: float, end: float, seconds: float) -> Cut:
    """The part to play for a window.

    Args:
        start: of the window, in seconds.
        end: of the window.
        seconds: length of the recording.
    """
    first = max(0.0, start - BEFORE)
    return Cut(first, min(end + AFTER, max(seconds, end), first + MAX_SECONDS))


def read_cut(source: Source, cut: Cut) -> tuple[NDArray[np.float32], int]:
    """Decode a part of a recording.

    Returns:
        ``[n, channels]`` float32 within -1 and 1, with one or two channels, and their rate in Hz.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it cannot be decoded, or ends before the part begins.
    """
    with opened(source) as file:
        rate = file.samplerate
        offset, total = 0, file.frames
        if isinstance(source, Segment):
            offset, total = source.frames(total, rate)
        first = offset + round(cut.start * rate)
        last = min(total, offset + round(cut.end * rate))
        if file.seekable():
            file.seek(min(first, file.frames))
        else:
            _skip(file, first)
        frames = file.read(max(0, last - first), dtype="float32", always_2d=True)
    if not len(frames):
        raise unusable(source, f"ends before {cut.start:.1f} s")
    if frames.shape[1] > 2:
        frames = frames.mean(axis=1, keepdims=True)
    frames = np.nan_to_num(frames, nan=0.0, posinf=1.0, neginf=-1.0)
    if not PLAYABLE[0] <= rate <= PLAYABLE[1]:
        channels = [resample(channel, rate, USUAL_RATE) for channel in frames.T.copy()]
        frames, rate = np.stack(channels, axis=1), USUAL_RATE
    # A float file may exceed full scale, where a WAV of 16 bits would crackle.
    peak = float(np.abs(frames).max(initial=0))
    return (frames / peak if peak > 1 else frames).astype(np.float32), rate


def _skip(file: soundfile.SoundFile, frames: int) -> None:
    """Read on to a sample, where a file cannot be sought in."""
    while frames > 0:
        got = len(file.read(min(frames, 2**20), dtype="int16"))
        if not got:
            return
        frames -= got


def to_wav(frames: NDArray[np.float32], rate: int) -> bytes:
    """A WAV file of ``[n, channels]`` samples, in 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, frames, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
