"""Clips that are a place in a YouTube video: what they are told apart by, and names of their
files."""

from __future__ import annotations

import math
from collections.abc import Mapping

from atr_moco_plugin.data.tables.segments import plain_number

_SECONDS = 10
_STARTS = ("start_time", "start", "start_seconds", "start_sec", "onset", "offset")


def start_of(row: Mapping[str, object]) -> str:
    """Where in its video a row's clip begins, as plain as can be (``30`` for ``30.0``); empty where
    the row does not say. The file is the cut already, so it is no place in that."""
    for name in _STARTS:
        value = row.get(name)
        if value is not None and str(value).strip():
            return plain_number(value)
    return ""


def clip_name(video: str, start: str) -> str:
    """What tells a clip from others of its video: ``<video>_<start>``, or the video alone."""
    return f"{video}_{start}" if start else video


def names_of(video: str, start: str, row_id: str = "") -> tuple[str, ...]:
    """Stems the audio of a clip may have, best first; the first two fit every start in the
    video."""
    stems = [f"Y{video}", video]
    try:
        seconds = float(start)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        end = seconds + _SECONDS
        for form in ("{:.0f}", "{:.1f}", "{:.3f}"):
            begin = form.format(seconds)
            stems += [f"{video}_{begin}", f"{video}_{begin}_{form.format(end)}"]
        ms = f"{video}_{1000 * seconds:.0f}"
        stems += [ms, f"{ms}_{1000 * end:.0f}"]
        stems += [f"Y{stem}" for stem in stems[2:]]
    return (*stems, row_id) if row_id else tuple(stems)
