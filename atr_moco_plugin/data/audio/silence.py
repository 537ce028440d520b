"""Whether there is nothing to be heard in a file, from as little of it as tells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import frame_blocks, opened
from atr_moco_plugin.data.audio.source import Segment, Source

SILENCE = 10 ** (-70 / 20)
"""Level of 50 ms below which they are silent: -70 dB of full scale."""

_WINDOWS_A_SECOND = 20
_FIRST_SECONDS = 1.0


def silent_samples(waveform: NDArray[np.float32], rate: int) -> int:
    """Samples in windows of 50 ms whose level is below :data:`SILENCE`.

    Args:
        waveform: ``[n]`` float32, mono.
        rate: in Hz.
    """
    starts = np.arange(0, len(waveform), max(1, rate // _WINDOWS_A_SECOND))
    energies = np.add.reduceat(np.square(waveform, dtype=np.float64), starts)
    lengths = np.diff(starts, append=len(waveform))
    return int(lengths[energies < SILENCE**2 * lengths].sum())


def is_silent(source: Source) -> bool:
    """Whether all of a file is silent, averaged over its channels, as a model hears it.

    Its first second is decoded, and the rest of one whose first second is silent.

    Raises:
        FileNotFoundError, InputError: if it cannot be decoded.
    """
    with opened(source) as file:
        first, last = 0, None
        if isinstance(source, Segment):
            first, last = source.frames(file.frames, file.samplerate)
        second = first + round(_FIRST_SECONDS * file.samplerate)
        stop = second if last is None else min(second, last)
        for begin, end in ((first, stop), (stop, last)):
            for block in frame_blocks(file, source, begin, end):
                if silent_samples(block, file.samplerate) < len(block):
                    return False
    return True
