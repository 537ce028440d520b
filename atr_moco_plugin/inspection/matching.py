"""Which fingerprints have a stretch in common, at any two places, without comparing all pairs.

Words with equal 24 lower bands bring two places together; the second around them decides. Words are
looked up in a sorted table, and each looks at a few entries of later waveforms alone, so that time
and memory grow with the number of words, whatever is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.inspection.fingerprint import SECONDS_A_WORD, SECONDS_OF_A_WORD, Words

MAX_ERROR = 0.3
"""Share of bits that may differ over a second of one sound. Copies in a lossy format differ in
0.05 to 0.22, other recordings in 0.38 and more."""

_SPAN = 62  # words in a second
_LEAST = 24  # words that must have something to say in it
_SHORT_ERROR = 0.2  # where half of the span has nothing to say, chance has more room
_MAX_ENTRIES = 12_000_000
_LOOKS = 16  # entries of an equal word that a word looks at, at most
_CHUNK = 2**18
_PAIRS_AT_ONCE = 2**15

_ONES = np.array([bin(number).count("1") for number in range(2**16)], np.uint8)

Positions = NDArray[np.int64]


class Match(NamedTuple):
    """Two waveforms that have sound in common.

    Attributes:
        first: position of one in the list.
        second: of the other, a later one.
        seconds: how much they have in common, silence not counted.
        share: how much of the sound of the one with less of it that is, in [0, 1].
        begin: seconds in the first at which it begins.
        end: seconds in the first at which it ends.
        shift: seconds by which it is later in the first than in the second.
    """

    first: int
    second: int
    seconds: float
    share: float
    begin: float
    end: float
    shift: float


class _Common(NamedTuple):
    """What :func:`_compare` finds, in words."""

    number: int = 0
    share: float = 0.0
    begin: int = 0
    end: int = 0


def find_matches(prints: Sequence[Words]) -> list[Match]:
    """Pairs of waveforms with at least about 0.7 s of sound in common.

    Of many copies of one sound not every pair is named, but each copy is in a pair with another,
    so that they hang together.

    Args:
        prints: what :func:`~.fingerprint.fingerprint` gives of each waveform.

    Returns:
        The pairs, each once, in order.
    """
    words = np.concatenate([*prints, np.zeros(0, np.uint32)])
    starts = np.cumsum([0, *map(len, prints)])
    if not len(words):
        return []
    shifts: dict[tuple[int, int], set[int]] = {}
    for at, to in _alike(words, starts):
        first, second = _owners(starts, at), _owners(starts, to)
        shift = (at - starts[first]) - (to - starts[second])
        found = np.unique(np.stack([first, second, shift]), axis=1)
        for a, b, by in found.T.tolist():
            shifts.setdefault((a, b), set()).add(by)
    matches = []
    for (a, b), several in sorted(shifts.items()):
        found_at = {by: _compare(prints[a], prints[b], by) for by in sorted(several)}
        shift, common = max(found_at.items(), key=lambda item: item[1].number)
        if common.number:
            matches.append(
                Match(
                    a,
                    b,
                    (common.number - 1) * SECONDS_A_WORD + SECONDS_OF_A_WORD,
                    common.share,
                    common.begin * SECONDS_A_WORD,
                    common.end * SECONDS_A_WORD + SECONDS_OF_A_WORD,
                    shift * SECONDS_A_WORD,
                )
            )
    return matches


def in_common(one: Words, two: Words, shift: float) -> bool:
    """Whether two fingerprints have sound in common, ``shift`` seconds later in the first."""
    return _compare(one, two, round(shift / SECONDS_A_WORD)).number > 0


def _compare(one: Words, two: Words, shift: int) -> _Common:
    """Compare two fingerprints where word ``k + shift`` of one meets word ``k`` of the other."""
    begin, back = max(0, shift), max(0, -shift)
    length = max(0, min(len(one) - begin, len(two) - back))
    a, b = one[begin : begin + length], two[back : back + length]
    heard = np.flatnonzero((a > 0) & (b > 0))
    wrong = _differing_bits(a, b)[heard].astype(np.float64)
    if len(wrong) < _LEAST:
        return _Common()
    # Each span of words that is alike as a whole is in common.
    span = min(_SPAN, len(wrong))
    sums = np.concatenate([[0.0], np.cumsum(wrong)])
    starts = np.flatnonzero(sums[span:] - sums[:-span] <= 32 * span * _limit(np.array(span)))
    marks = np.zeros(len(wrong) + 1, np.int64)
    np.add.at(marks, starts, 1)
    np.add.at(marks, starts + span, -1)
    common = np.flatnonzero(np.cumsum(marks)[:-1])
    if not len(common):
        return _Common()
    fewer = min(int((one > 0).sum()), int((two > 0).sum()))
    first, last = begin + heard[common[[0, -1]]]
    return _Common(len(common), len(common) / fewer, int(first), int(last))


def _alike(words: Words, starts: Positions) -> Iterator[tuple[Positions, Positions]]:
    """Pairs of positions of words whose surroundings are alike, the first in an earlier print."""
    table = _table(words, starts)
    heard = np.flatnonzero(words)
    for begin in range(0, len(heard), _CHUNK):
        at = heard[begin : begin + _CHUNK]
        key = words[at].astype(np.uint64) >> np.uint64(8)
        after = starts[_owners(starts, at) + 1].astype(np.uint64)
        place = np.searchsorted(table, (key << np.uint64(40)) | after)
        number = np.searchsorted(table, (key + np.uint64(1)) << np.uint64(40)) - place
        for look in range(_LOOKS):
            step = np.where(number <= _LOOKS, look, _step(at, number, look))
            seen = (number > look) & (step < number)
            to = (table[(place + step)[seen]] & np.uint64(2**40 - 1)).astype(np.int64)
            for k in range(0, len(to), _PAIRS_AT_ONCE):
                some = slice(k, k + _PAIRS_AT_ONCE)
                alike = _surroundings_alike(words, starts, at[seen][some], to[some])
                if alike.any():
                    yield at[seen][some][alike], to[some][alike]


def _step(at: Positions, number: Positions, look: int) -> Positions:
    """Where a word looks among more entries than it looks at: half of the looks are at the nearest,
    through which many copies hang together, and half anywhere, where a single one may be."""
    if look < _LOOKS // 2:
        return np.full_like(at, look)
    anywhere: Positions = (at * 2_654_435_761 + look * 40_503) % 2**32 % np.maximum(number, 1)
    return anywhere


def _table(words: Words, starts: Positions) -> NDArray[np.uint64]:
    """Sorted entries: 24 bits of a word above 40 bits of its position."""
    stride = -(-len(words) // _MAX_ENTRIES)
    kept = np.flatnonzero(words)
    kept = kept[(kept - starts[_owners(starts, kept)]) % stride == 0]
    entries = (words[kept].astype(np.uint64) >> np.uint64(8)) << np.uint64(40)
    return np.sort(entries | kept.astype(np.uint64))


def _owners(starts: Positions, positions: Positions) -> Positions:
    """The print that each position is in."""
    return np.searchsorted(starts, positions, side="right") - 1


def _surroundings_alike(
    words: Words, starts: Positions, at: Positions, to: Positions
) -> NDArray[np.bool_]:
    around = np.arange(_SPAN) - _SPAN // 2
    a, b = (_gather(words, starts, positions, around) for positions in (at, to))
    heard = (a > 0) & (b > 0)
    number = heard.sum(axis=1)
    wrong = (_differing_bits(a, b) * heard).sum(axis=1)
    alike: NDArray[np.bool_] = (number >= _LEAST) & (wrong <= 32 * number * _limit(number))
    return alike


def _gather(
    words: Words, starts: Positions, positions: Positions, around: Positions
) -> NDArray[np.uint32]:
    """``[positions, around]``: the words around each, 0 beyond its print."""
    owners = _owners(starts, positions)[:, None]
    wanted = positions[:, None] + around
    inside = (wanted >= starts[owners]) & (wanted < starts[owners + 1])
    found: NDArray[np.uint32] = words[np.where(inside, wanted, 0)] * inside
    return found


def _limit(number: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(2 * number > _SPAN, MAX_ERROR, _SHORT_ERROR)


def _differing_bits(one: Words, two: Words) -> NDArray[np.uint8]:
    different = one ^ two
    ones: NDArray[np.uint8] = _ONES[different & 0xFFFF] + _ONES[different >> 16]
    return ones
