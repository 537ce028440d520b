"""Clips that are a place in a YouTube video: how they are named, and how their files are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from atr_moco_plugin.data.tables.column_names import VIDEO_STARTS
from atr_moco_plugin.data.tables.segments import plain_number

_SECONDS = 10


def start_of(row: Mapping[str, object]) -> str:
    """The start of a row's clip in its video, without needless digits (``30`` for ``30.0``); empty
    where the row has none. The file holds the clip alone, so this is no place in the file."""
    for name in VIDEO_STARTS:
        value = row.get(name)
        if value is not None and str(value).strip():
            return plain_number(value)
    return ""


def clip_name(video: str, start: str) -> str:
    """A name that no other clip of the video has: ``<video>_<start>``, or the video alone."""
    return f"{video}_{start}" if start else video


def names_of(video: str, start: str, row_id: str = "") -> tuple[str, ...]:
    """Stems that the file of a clip may have, best first; the first two fit every clip of the
    video.

    Args:
        video: the id on YouTube.
        start: what :func:`start_of` gives.
        row_id: the ``audiocap_id``, which names one file a caption.
    """
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
