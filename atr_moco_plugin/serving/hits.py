"""A hit as the page shows it."""

from __future__ import annotations

import os
from typing import Any

from atr_moco_plugin.search.hits import Hit
from atr_moco_plugin.search.store import Recording
from atr_moco_plugin.serving.sounds import around

_DIGEST = 16
"""Characters of a digest in the address of a sound."""

GONE = "The file is gone since it was indexed."
CHANGED = "The file has changed since it was indexed: index again, the moment may be another."


def described(hit: Hit) -> dict[str, Any]:
    """A hit as JSON; times are seconds of the recording."""
    recording = hit.recording
    folder, name = os.path.split(recording.name)
    problem = problem_of(recording)
    of = recording.digest[:_DIGEST]
    return {
        "window": hit.window,
        "path": recording.name,
        "folder": folder,
        "name": name,
        "seconds": recording.seconds,
        "start": hit.start,
        "end": hit.end,
        "moment": [hit.moment_start, hit.moment_end],
        "cut": list(around(hit.moment_start, hit.moment_end, recording.seconds)),
        "score": float(hit.score),
        "cosine": float(hit.cosine),
        "reranked": None if hit.reranked is None else float(hit.reranked),
        "problem": problem,
        "gone": problem == GONE,
        "sound": f"/sound/{hit.window}.wav?of={of}",
        "picture": f"/picture/{hit.window}.png?of={of}",
    }


def problem_of(recording: Recording) -> str:
    """Whether the file of a recording is still the one that was indexed.

    Returns:
        :data:`GONE`, :data:`CHANGED` where its time or size is another, or nothing.
    """
    try:
        state = os.stat(recording.path)
    except (OSError, ValueError):
        return GONE
    return "" if recording.is_as_indexed(state) else CHANGED
