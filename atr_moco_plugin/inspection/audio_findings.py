"""What there is to say of the audio of single clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from atr_moco_plugin.data.audio.scale import MAX_PEAK
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.findings import Finding

MOSTLY = 0.9
"""Share of the time from which on a clip is mostly silent."""

CLIPPED = 0.001
"""Share of clipped samples from which on a clip is clipped."""

OFFSET = 0.01
"""Mean from which on a clip has an offset: 1 % of full scale."""

QUIET = 0.01
"""Peak below which a clip is quiet: -40 dB of full scale."""

_CANCELLED = 0.1  # of the channels' level, 20 dB, that is left of it in their average


def audio_findings(audio: Iterable[ClipAudio]) -> list[Finding]:
    """The findings on each clip by itself, in order.

    Where nothing is to be heard the clip is to be left out: ``unreadable``, ``silence``, and
    ``channels cancel`` if nothing is left. The other kinds are ``mostly silent``, ``quiet``,
    ``clipping``, ``scale``, ``DC offset`` and ``dead channel``.
    """
    return [finding for clip in audio for finding in _of_clip(clip)]


def _of_clip(clip: ClipAudio) -> Iterator[Finding]:
    def finding(kind: str, what: str, exclude: bool = False) -> Finding:
        return Finding(kind, clip.split, clip.key, what, exclude=exclude)

    if clip.problem:
        yield finding("unreadable", f"It cannot be decoded: {clip.problem}.", exclude=True)
        return
    silent = clip.silent == 1
    if clip.mono_rms < _CANCELLED * clip.rms:
        rest = "nothing" if silent else f"{decibels(clip.mono_rms / clip.rms)} of their level"
        yield finding(
            "channels cancel",
            f"Its {clip.channels} channels cancel each other: {rest} is left in their average, "
            "which a model hears.",
            exclude=silent,
        )
    elif silent:
        what = "every sample is 0" if not clip.peak else f"the peak is {decibels(clip.peak)}"
        yield finding("silence", f"All of its {clip.seconds:.1f} s are silent: {what}.", True)
    elif clip.silent >= MOSTLY:
        yield finding("mostly silent", f"{clip.silent:.0%} of its {clip.seconds:.1f} s are silent.")
    if clip.peak < QUIET and not silent:
        yield finding("quiet", f"Its peak is {decibels(clip.peak)} of full scale.")
    if clip.peak > MAX_PEAK:
        yield finding(
            "scale",
            f"Its samples go up to {clip.peak:,.0f}, where full scale is 1: they are integers that "
            "were not scaled.",
        )
        return
    if clip.clipped >= CLIPPED:
        yield finding(
            "clipping",
            f"{clip.clipped:.1%} of its samples are at or beyond full scale; the peak is "
            f"{clip.peak:.2f}.",
        )
    if clip.offset >= OFFSET:
        yield finding("DC offset", f"Its mean is {clip.offset:.1%} of full scale away from 0.")
    if 0 < clip.dead_channels < clip.channels:
        yield finding(
            "dead channel",
            f"{clip.dead_channels} of its {clip.channels} channels {_are(clip.dead_channels)} "
            "empty, which makes their average quieter.",
        )


def decibels(level: float) -> str:
    """A level, where full scale is 1, as it is written: ``-12.0 dB``."""
    return f"{20 * math.log10(level):.1f} dB" if level > 0 else "-inf dB"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
