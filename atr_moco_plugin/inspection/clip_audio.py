"""What one pass over the audio of a clip measures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atr_moco_plugin.inspection.fingerprint import Words


@dataclass(frozen=True, slots=True)
class ClipAudio:
    """The audio of one clip in figures.

    Attributes:
        split: the split that the clip is in.
        key: of the clip.
        problem: why it cannot be decoded, one sentence; empty where it can. The figures are 0 where
            there is a problem.
        seconds: how long it lasts.
        rate: of the file, in Hz.
        channels: of the file.
        peak: largest sample of any channel, where full scale is 1.
        rms: root of the mean square over all channels.
        mono_rms: that of their average, which a model hears.
        clipped: share of the samples that are beyond full scale, or at it two and more in a row.
        silent: share of the time in which the average is below -70 dB of full scale, in 50 ms.
        offset: largest mean of a channel, without its sign.
        dead_channels: channels in which every sample is 0.
        digest: of the decoded samples and their rate; empty for digital silence.
        words: the fingerprint, see :func:`~.fingerprint.fingerprint`.
    """

    split: str
    key: str
    problem: str = ""
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    peak: float = 0.0
    rms: float = 0.0
    mono_rms: float = 0.0
    clipped: float = 0.0
    silent: float = 0.0
    offset: float = 0.0
    dead_channels: int = 0
    digest: bytes = b""
    words: Words = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False, compare=False)
