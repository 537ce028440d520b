"""A waveform as a small file inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError

_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def sound_uri(waveform: NDArray[np.float32], sample_rate: int) -> str:
    """Encode a waveform as a ``data:`` address that every browser plays.

    MP3 at about 40 kbit/s where libsndfile writes it (1.1 and later), else FLAC, about three times
    as large. Samples above full scale are clipped.

    Args:
        waveform: ``[samples]``, mono.
        sample_rate: its rate in Hz; one that MP3 does not have is encoded as FLAC.

    Raises:
        InputError: when it is not one finite channel with at least one sample.
        soundfile.SoundFileError: when libsndfile cannot encode it.
    """
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0 or not np.isfinite(samples).all():
        raise InputError(f"finite samples of one channel are expected, got {list(samples.shape)}")
    mp3 = sample_rate in _MP3_RATES and "MP3" in soundfile.available_formats()
    format, kind = ("MP3", "mpeg") if mp3 else ("FLAC", "flac")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), sample_rate, format=format)
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
