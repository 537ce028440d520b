"""A waveform as a small file inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from atr_moco_plugin.data.audio import SAMPLE_RATE
from atr_moco_plugin.errors import InputError


def sound_uri(waveform: NDArray[np.float32]) -> str:
    """Encode a waveform as a ``data:`` address that every browser plays.

    MP3 at about 40 kbit/s where libsndfile writes it (1.1 and later), else FLAC, about three times
    as large. What exceeds full scale is clipped.

    Args:
        waveform: ``[samples]`` at 16 kHz, mono.

    Raises:
        ValueError: when it is not one finite channel with at least one sample.
        soundfile.SoundFileError: when libsndfile cannot encode it.
    """
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0 or not np.isfinite(samples).all():
        raise InputError(f"finite samples of one channel are expected, got {list(samples.shape)}")
    format, kind = ("MP3", "mpeg") if "MP3" in soundfile.available_formats() else ("FLAC", "flac")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), SAMPLE_RATE, format=format)
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
