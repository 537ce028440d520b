"""Ask an index: from embeddings of what is wanted to stretches of recordings, best first.

Shapes: Q queries, R recordings, d embedding size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.search.hits import Hit, alone, merged, touch, widened
from atr_moco_plugin.search.store import Filter, NoWindowError, Store

PENALTY = 1.0
"""How much fitting what is not wanted counts, see :func:`find`."""

_FIRST = 4
_MOST = 8192
_TRIES = 10
_EVEN = 1e-6


def find(
    store: Store,
    wanted: NDArray[np.float32],
    unwanted: NDArray[np.float32] | None = None,
    k: int = 10,
    only: Filter | None = None,
    penalty: float = PENALTY,
    alpha: float = 0.0,
) -> list[Hit]:
    """The best stretches of recordings for a query.

    **One query.** Windows are taken by their cosine, best first, and those of a recording that
    overlap or touch become one hit, until there are k hits or no windows are left. The score of a
    hit is its best cosine.

    **Corrected.** With an ``alpha``, each cosine here and below is less ``alpha`` times the offset
    of its window, see :mod:`~atr_moco_plugin.search.bank`; all queries are then sentences.

    **Several, or some that are not wanted.** Let ``c[q, r]`` be the best cosine of query q in
    recording r, and ``z[q, r] = (c[q, r] - mean_r c[q]) / std_r c[q]`` over all recordings of the
    index, whatever the filter; 0 where all are the same. The score of a recording is ::

        min over wanted q of z[q, r]  -  penalty * max(0, max over unwanted q of z[q, r])

    so that a recording must fit all that is wanted, and gains nothing by fitting what is not wanted
    less than others do. There is one hit a recording: the best window of the first query, with the
    best windows of the other wanted ones that overlap or touch it.

    Args:
        store: the index.
        wanted: ``[Q, d]`` unit-norm embeddings, one or more.
        unwanted: ``[Q, d]`` unit-norm embeddings; None for none.
        k: how many hits at most.
        only: which recordings are looked at.
        penalty: as above, 0 or more.
        alpha: as above, 0 or more; 0 corrects nothing.

    Returns:
        hits, best first; of equal scores, the lower window first.

    Raises:
        ValueError: for shapes, numbers or a k that cannot be.
        InputError: for an empty pattern of paths, an alpha without a bank, and where a writer
            replaces what was found again and again.
    """
    if not len(wanted) or not penalty >= 0 or k < 1:
        raise ValueError("a query needs something wanted, a penalty of 0 or more, a k of 1 or more")
    rest = wanted[:0] if unwanted is None else unwanted
    if only is not None and only.path == "":
        raise InputError(
            "the pattern of paths is empty, which no path matches: give one such as '*/birds/*', "
            "or leave it out."
        )
    if only == Filter():  # which would be asked about every recording
        only = None
    for _ in range(_TRIES):
        bank = store.bank() if alpha else None
        try:
            if len(wanted) == 1 and not len(rest):
                hits = _find_one(store, wanted, k, only, alpha)
            else:
                hits = _find_all(store, wanted, rest, k, only, penalty, alpha)
        except NoWindowError:  # a writer has replaced the recording after it was compared
            continue
        # The index is asked several times: scores by two banks would be compared.
        if not alpha or store.bank() == bank:
            return hits
    raise InputError("the index changes faster than it is searched: search again in a while")


def _find_one(
    store: Store, wanted: NDArray[np.float32], k: int, only: Filter | None, alpha: float
) -> list[Hit]:
    most = max(_MOST, k)
    count = min(_FIRST * k, most)
    while True:
        windows = store.nearest(wanted, count, only, alpha)[0]
        hits = merged(windows, k)
        if len(hits) == k or len(windows) < count:
            return hits
        if count == most:
            break
        count = min(4 * count, most)
    # A few recordings with very many windows each. Of the others, the best window.
    seen = {hit.recording.key for hit in hits}
    scores, numbers, cosines = (x[0] for x in store.recording_scores(wanted, only, alpha))
    order = np.argsort(-scores, kind="stable")[: k + len(seen)]
    windows = store.windows(numbers[order].tolist())
    found = zip(windows, scores[order].tolist(), cosines[order].tolist(), strict=True)
    others = [alone(window, score, cosine) for window, score, cosine in found]
    return (hits + [hit for hit in others if hit.recording.key not in seen])[:k]


def _find_all(
    store: Store,
    wanted: NDArray[np.float32],
    unwanted: NDArray[np.float32],
    k: int,
    only: Filter | None,
    penalty: float,
    alpha: float,
) -> list[Hit]:
    queries = np.concatenate([wanted, unwanted])
    every = store.recording_scores(queries, alpha=alpha)
    taken = every if only is None else store.recording_scores(queries, only, alpha)
    scores = combined(taken.scores, every.scores, len(wanted), penalty)
    order = np.lexsort((taken.windows[0], -scores))[:k]
    windows = store.windows(taken.windows[: len(wanted), order].ravel().tolist())
    hits = []
    for place, row in enumerate(order):
        hit = alone(windows[place], float(scores[row]), float(taken.cosines[0, row]))
        others = windows[place + len(order) :: len(order)]
        # Each may touch what the one before has widened.
        for window in sorted(others, key=lambda x: abs(x.start - hit.moment_start)):
            if touch(hit, window):
                hit = widened(hit, window)
        hits.append(hit)
    return hits


def combined(
    cosines: NDArray[np.float32], every: NDArray[np.float32], wanted: int, penalty: float
) -> NDArray[np.float64]:
    """One score a recording from its cosines with several queries; the formula is :func:`find`'s.

    Args:
        cosines: ``[Q, R]``, the wanted queries first.
        every: ``[Q, R']`` of all recordings, from which means and deviations are.
        wanted: how many queries are wanted, 1 or more.
        penalty: of those that are not.

    Returns:
        ``[R]``, to five places, so that recordings of the same sound have the same score.
    """
    if not every.shape[1]:
        return np.zeros(cosines.shape[1])
    mean = every.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = every.std(axis=1, keepdims=True, dtype=np.float64)
    # Where all are the same but for rounding, no recording fits better than another.
    same = spread < _EVEN
    z = np.where(same, 0.0, (cosines - mean) / np.where(same, 1.0, spread))
    scores: NDArray[np.float64] = z[:wanted].min(axis=0)
    if len(z) > wanted:
        scores = scores - penalty * np.maximum(z[wanted:].max(axis=0), 0.0)
    return scores.round(5)
