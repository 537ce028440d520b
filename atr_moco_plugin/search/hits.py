"""Answers of an index: stretches of recordings, made of windows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from atr_moco_plugin.search.store import Recording, WindowHit

GONE = "The file is gone since it was indexed."
CHANGED = "The file has changed since it was indexed: index again, the moment may be another."

_INSTANT = 1e-6


class Hit(NamedTuple):
    """A stretch of a recording that fits a query.

    Attributes:
        recording: what it is a part of.
        start: where the stretch begins, in seconds.
        end: where it ends.
        moment_start: where its best window begins, in seconds.
        moment_end: where that ends.
        window: number of the best window.
        score: of the best window: its cosine with a single query, less what a correction takes off;
            else see :func:`~atr_moco_plugin.search.query.find`.
        cosine: of the best window with the first query, as it is.
        reranked: score of the matching head, where :func:`~atr_moco_plugin.search.rerank.rerank`
            has asked it.
    """

    recording: Recording
    start: float
    end: float
    moment_start: float
    moment_end: float
    window: int
    score: float
    cosine: float
    reranked: float | None = None


def merged(windows: Sequence[WindowHit], k: int) -> list[Hit]:
    """Join windows of a recording that overlap or touch, until there are k hits.

    Args:
        windows: best first. Those after the one that makes the k-th hit are not looked at.
        k: 1 or more.

    Returns:
        hits in the order of their best windows.
    """
    hits: dict[int, Hit] = {}  # by the place of the best window, ascending
    places: dict[tuple[str, str], list[int]] = {}
    for place, window in enumerate(windows):
        own = places.setdefault(window.recording.key, [])
        joined = [n for n in own if touch(hits[n], window)]
        if not joined:
            own.append(place)
            hits[place] = alone(window, window.score, window.cosine)
            if len(hits) == k:
                break
            continue
        first, *rest = joined
        hits[first] = widened(hits[first], window, *(hits[n] for n in rest))
        for n in rest:
            own.remove(n)
            del hits[n]
    return list(hits.values())


def alone(window: WindowHit, score: float, cosine: float) -> Hit:
    """A hit of one window."""
    span = (window.start, window.end)
    return Hit(window.recording, *span, *span, window.window, score, cosine)


def touch(one: Hit, other: Hit | WindowHit) -> bool:
    """Whether two stretches of a recording overlap, or the one ends where the other begins."""
    return one.start <= other.end + _INSTANT and other.start <= one.end + _INSTANT


def widened(hit: Hit, *others: Hit | WindowHit) -> Hit:
    """A hit that has the stretches of others too."""
    starts, ends = [x.start for x in others], [x.end for x in others]
    return hit._replace(start=min(hit.start, *starts), end=max(hit.end, *ends))


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
