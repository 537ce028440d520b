"""Audio files to 16 kHz mono float32, and waveforms to a bounded length."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

SAMPLE_RATE = 16_000
"""Samples a second of every waveform in this package."""

MIN_SAMPLES = 2_800
"""Shortest clip, one patch of BEATs: 16 frames of 25 ms, 10 ms apart (0.175 s)."""


def read_audio(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Decode an audio file with soundfile; any rate, channel count and subtype it reads.

    Channels are averaged and the result is resampled with a windowed sinc. Samples of a file within
    full scale are in ``[-1, 1]``; a float file that exceeds it is returned as it is.

    Args:
        path: a WAV, FLAC, Ogg, MP3, ... file.

    Returns:
        ``[samples]`` float32 at 16 kHz, at least :data:`MIN_SAMPLES` long.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be decoded, has NaN or infinite samples, or is too short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file; check the data set's root folder")
    try:
        frames, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = "the file is empty" if path.stat().st_size == 0 else str(error).strip()
        raise ValueError(
            f"{path}: not readable as audio ({reason}); fetch it again or leave it out"
        ) from error
    waveform = np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32))
    if not np.isfinite(waveform).all():
        raise ValueError(f"{path}: has NaN or infinite samples; fetch it again or leave it out")
    if rate != SAMPLE_RATE and waveform.size:
        waveform = resample(torch.from_numpy(waveform), rate, SAMPLE_RATE).numpy()
    return check_length(waveform, str(path))


def check_length(waveform: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Return ``waveform`` ``[samples]`` if it is long enough to encode.

    Raises:
        ValueError: if it is shorter than :data:`MIN_SAMPLES`; the message begins with ``name``.
    """
    if waveform.shape[0] < MIN_SAMPLES:
        raise ValueError(
            f"{name}: lasts {waveform.shape[0] / SAMPLE_RATE:.3f} s, at least "
            f"{MIN_SAMPLES / SAMPLE_RATE:.3f} s is needed; take it out of the data set"
        )
    return waveform


def fit_length(
    waveform: NDArray[np.float32], samples: int, generator: torch.Generator | None = None
) -> NDArray[np.float32]:
    """Cut a waveform to at most ``samples`` samples; a shorter one is returned as it is.

    Args:
        waveform: ``[n]`` float32.
        samples: the most samples to keep, at least 1.
        generator: where the random crop of training comes from; ``None`` keeps the first
            ``samples``, which is what evaluation does.

    Returns:
        ``[min(n, samples)]`` float32, a view of ``waveform``.

    Raises:
        ValueError: if ``samples`` is less than 1.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    spare = waveform.shape[0] - samples
    if spare <= 0:
        return waveform
    start = 0
    if generator is not None:
        start = int(torch.randint(spare + 1, (), generator=generator))
    return waveform[start : start + samples]
