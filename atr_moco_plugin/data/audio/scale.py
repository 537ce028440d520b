"""Samples that are no sound: NaN, infinite, or integers that were turned into floats and not
scaled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.source import unusable
from atr_moco_plugin.errors import InputError

MAX_PEAK = 32.0
"""Largest float sample taken for sound, 30 dB above full scale. Beyond it are integers that were
turned into floats and not scaled."""


def scale_problem(peak: float, most: float = MAX_PEAK) -> str:
    """What is wrong with a waveform of that peak, and what to do; empty where nothing is.

    Args:
        peak: the largest of its absolute samples, where full scale is 1.
        most: the largest that is taken for sound.
    """
    if peak <= most:
        return ""
    return (
        f"it has float samples up to {peak:,.0f}, where full scale is 1; divide 16-bit samples by "
        "32768, or give them as int16"
    )


def check_samples(waveform: NDArray[np.float32], source: object, most: float = MAX_PEAK) -> None:
    """Refuse decoded audio that is no sound. It takes two passes without a copy.

    Args:
        waveform: ``[n]``.
        source: where it is from, for the message.
        most: the largest absolute sample that is taken for sound.

    Raises:
        InputError: for NaN or infinite samples, or a peak beyond ``most``.
    """
    peak = float(max(waveform.max(initial=0), -waveform.min(initial=0)))  # NaN if one sample is
    if not np.isfinite(peak):
        raise unusable(source, "has NaN or infinite samples")
    if problem := scale_problem(peak, most):
        raise InputError(f"{source}: {problem}")
