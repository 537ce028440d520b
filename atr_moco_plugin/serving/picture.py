"""A small picture of a sound: time to the right, pitch upwards, the stronger the more colour.

It is a log-mel spectrogram whose weakest parts are transparent, so that it lies on any background.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

COLUMNS, MELS = 640, 72
"""Width and height of a picture in pixels."""

RANGE_DB = 65.0
"""What is weaker than the strongest part by this much is not seen."""

LOWEST, HIGHEST = 40.0, 16_000.0
"""Frequencies in Hz at the lower and the upper edge; the upper is at most half the rate."""

# Colours from weak to strong, with their opacity: on a light page towards dark ink, on a dark one
# towards light.
_LIGHT = ((224, 242, 241, 0), (94, 194, 183, 150), (31, 122, 140, 235), (20, 40, 80, 255))
_DARK = ((16, 60, 70, 0), (22, 110, 122, 170), (72, 196, 178, 240), (250, 248, 214, 255))


def picture(waveform: NDArray[np.float32], rate: int, *, dark: bool = False) -> bytes:
    """Draw a sound.

    Args:
        waveform: ``[n]`` float32.
        rate: its samples a second.
        dark: for a dark background.

    Returns:
        A PNG file of :data:`COLUMNS` x :data:`MELS` pixels; silence is an empty picture.
    """
    levels = np.round(_levels(waveform, rate)[::-1] * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    colours = _palette(dark)
    image.putpalette(colours[:, :3].tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=colours[:, 3].tobytes(), optimize=True)
    return file.getvalue()


def _levels(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """``[MELS, COLUMNS]`` from 0 (nothing) to 1 (strongest), lowest pitch first."""
    size = 2 ** round(np.log2(max(64, 0.04 * rate)))  # about 40 ms
    padded = np.pad(waveform, (size // 2, size))
    starts = np.linspace(0, max(0, len(waveform) - 1), COLUMNS).astype(np.int64)
    frames = sliding_window_view(padded, size)[starts] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    decibels = 10 * np.log10(_filters(size, rate) @ power.T + 1e-10)
    # Below -75 dB of full scale it is the noise of 16 bits: silence stays empty.
    top = max(float(np.percentile(decibels, 99.8)), 10 * np.log10(size**2 / 8) - 75 + RANGE_DB / 2)
    levels: NDArray[np.float64] = np.clip(1 + (decibels - top) / RANGE_DB, 0, 1)
    return levels


@lru_cache(maxsize=8)
def _filters(size: int, rate: int) -> NDArray[np.float64]:
    """``[MELS, size // 2 + 1]``, from the power of a spectrum to that of each row."""
    from transformers.audio_utils import mel_filter_bank

    highest = min(HIGHEST, rate / 2)
    lower, upper = (2595 * np.log10(1 + edge / 700) for edge in (LOWEST, highest))
    filters: NDArray[np.float64] = mel_filter_bank(
        size // 2 + 1, MELS, LOWEST, highest, rate, mel_scale="htk"
    ).T
    # Low rows may be narrower than the spectrum's bins, and then hold none: they take the nearest.
    centres = 700 * (10 ** (np.linspace(lower, upper, MELS + 2)[1:-1] / 2595) - 1)
    empty = ~filters.any(axis=1)
    filters[empty, np.rint(centres * size / rate).astype(np.int64)[empty]] = 1
    return filters


@lru_cache(maxsize=2)
def _palette(dark: bool) -> NDArray[np.uint8]:
    """``[256, 4]``: red, green, blue and opacity of each level."""
    stops = np.array(_DARK if dark else _LIGHT, dtype=np.float64)
    at = np.linspace(0, 1, len(stops))
    table = [np.interp(np.linspace(0, 1, 256), at, column) for column in stops.T]
    colours: NDArray[np.uint8] = np.rint(np.stack(table, axis=1)).astype(np.uint8)
    return colours
