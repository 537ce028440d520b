"""A hit as the page shows it."""

from __future__ import annotations

import os
from typing import Any

from atr_moco_plugin.search.hits import GONE, Hit, problem_of
from atr_moco_plugin.serving.sounds import around

_DIGEST = 16
"""Characters of a digest in the address of a sound."""


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
