"""Order hits anew by the matching head, which listens to their best moments again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.io.stdout import printable
from atr_moco_plugin.search.hits import Hit
from atr_moco_plugin.search.names import part_of
from atr_moco_plugin.search.sources import open_recording

if TYPE_CHECKING:
    from atr_moco_plugin.retriever import AudioTextRetriever

RERANKED = 50
"""Hits that are usually re-ranked: the matching head takes far longer than a cosine."""

_log = logging.getLogger(__name__)


def rerank(hits: Sequence[Hit], retriever: AudioTextRetriever, sentence: str) -> list[Hit]:
    """Order hits by what the matching head says of their best windows.

    The score is ``log-odds + cosine / temperature``, as an evaluation re-ranks. A hit whose file is
    gone, has changed since it was indexed or cannot be read keeps its place, with no ``reranked``
    score, and a warning of the log says so; the others take the other places. For example, of A, B,
    C by cosine, where B's file is gone and the head likes C best: C, B, A.

    Args:
        hits: best first.
        retriever: with a matching head.
        sentence: what was asked; of several, the first, whose moments and cosines the hits have.

    Raises:
        InputError: without a matching head.
    """
    if not hits:
        return []
    log_odds: dict[int, float] = {}
    waiting: list[tuple[int, NDArray[np.float32]]] = []
    for place, hit in enumerate(hits):
        try:
            waiting.append((place, read_moment(hit, retriever)))
        except (InputError, OSError) as ex:
            _log.warning("Not re-ranked: %s", printable(str(ex)))
        if len(waiting) == retriever.batch_size or (waiting and place == len(hits) - 1):
            found = retriever.match_windows([sentence] * len(waiting), [x for _, x in waiting])
            log_odds |= zip((n for n, _ in waiting), found.tolist(), strict=True)
            waiting = []
    scored = [
        hits[place]._replace(reranked=odds + hits[place].cosine / retriever.temperature)
        for place, odds in log_odds.items()
    ]
    scored.sort(key=lambda hit: (-(hit.reranked or 0.0), hit.window))
    best = iter(scored)
    return [next(best) if place in log_odds else hit for place, hit in enumerate(hits)]


def read_moment(hit: Hit, retriever: AudioTextRetriever) -> NDArray[np.float32]:
    """The waveform of a hit's best window, read again.

    Returns:
        ``[n]`` float32 at the retriever's rate, no longer than its window.

    Raises:
        InputError: if the file is gone, has changed since it was indexed, or cannot be read.
    """
    recording = hit.recording
    source = open_recording(recording)
    state = os.stat(recording.path)
    if not recording.is_as_indexed(state):
        raise InputError(f"{recording.name}: has changed since it was indexed; index it again")
    part = part_of(recording.member)
    if part is not None or not recording.member:
        # Not from the beginning: it may be ten hours long.
        begin = part[0] if part else 0.0
        source = Segment(recording.path, begin + hit.moment_start, begin + hit.moment_end)
        return next(retriever.windows(source)).waveform
    for window in retriever.windows(source):
        if window.start > hit.moment_start - 1e-3:
            return window.waveform
    raise InputError(f"{recording.name}: ends before {hit.moment_start:g} s; index it again")
