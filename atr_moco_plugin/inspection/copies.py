"""Pairs of clips that have sound in common: found by fingerprints, and held against each other."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.decoding import read_stretch
from atr_moco_plugin.inspection.fingerprint import BAND_EDGES, SAMPLE_RATE
from atr_moco_plugin.inspection.matching import Match, find_matches, in_common

MIN_CORRELATION = 0.5
"""What :func:`correlate` gives of two waveforms from which on they are one recording. Copies in a
lossy format have 0.8 and more, and other sounds of one kind whose fingerprints are alike mostly 0.3
and less."""

_MOST_SECONDS = 10  # of a match that are held against each other
_MOST_PAIRS = 8  # of a clip, from which on those that follow from others are not read
_LAG = SAMPLE_RATE // 25  # by which places that fingerprints found are moved: 40 ms


class Copy(NamedTuple):
    """Two clips that have sound in common.

    Attributes:
        first: position of one clip in the list.
        second: of the other, a later one.
        exact: whether all samples are equal.
        seconds: how much they have in common, silence not counted.
        share: how much of the sound of the one with less of it that is, in [0, 1].
        shift: seconds by which it is later in the first than in the second.
        correlation: of the two waveforms over it, see :func:`correlate`.
    """

    first: int
    second: int
    exact: bool
    seconds: float
    share: float
    shift: float
    correlation: float

    def other(self, at: int) -> int:
        """The clip of the pair that is not at this position."""
        return self.second if at == self.first else self.first

    def later_in_other(self, at: int) -> float:
        """Seconds by which it is later in the other clip than in that at this position."""
        return -self.shift if at == self.first else self.shift

    def sentence(self, audio: Sequence[ClipAudio], at: int, dataset: str = "") -> str:
        """What the clip at a position has in common with the other, whose data set may be named."""
        other = audio[self.other(at)]
        name = f"{other.key!r} of {f'{dataset}, ' if dataset else ''}{other.split}"
        if self.exact:
            return f"All of its samples are those of {name}."
        shift = self.shift if at == self.first else -self.shift
        place = f", {abs(shift):.2f} s {'later' if shift > 0 else 'earlier'} in this clip"
        return (
            f"{self.seconds:.1f} s of it, {self.share:.0%} of the sound of the shorter of the two, "
            f"are in {name} as well{place if round(shift, 2) else ''} (the waveforms correlate "
            f"with {self.correlation:.2f})."
        )


class Waveforms:
    """Reads stretches of clips by their positions, at the rate of fingerprints.

    Args:
        datasets: data sets with their numbers of clips, whose positions follow each other.
        decoder: what reads the files.
    """

    def __init__(
        self, datasets: Sequence[tuple[AudioTextDataset, int]], decoder: Decoder = "soundfile"
    ) -> None:
        self._decoder: Decoder = decoder
        self._parts = [
            (dataset, clips) for dataset, _ in datasets for clips in dataset.splits.values()
        ]
        self._ends = list(accumulate(len(clips) for _, clips in self._parts))

    def clip(self, at: int) -> tuple[AudioTextDataset, Clip]:
        """The clip at a position, and its data set."""
        part = bisect_right(self._ends, at)
        dataset, clips = self._parts[part]
        return dataset, clips[at - (self._ends[part] - len(clips))]

    def read(self, at: int, start: int, stop: int) -> NDArray[np.float32]:
        """Samples of the clip at a position, zeros outside of it."""
        dataset, clip = self.clip(at)
        return read_stretch(dataset, clip, SAMPLE_RATE, start, stop, self._decoder)


def find_copies(audio: Sequence[ClipAudio], waveforms: Waveforms) -> list[Copy]:
    """Pairs of clips that have sound in common, over other rates, levels, channels, formats, cuts.

    Equal samples are found whatever they are, but for digital silence. Copies that are not equal
    are found by their fingerprints, from about 0.7 s of sound on, and are copies if their waveforms
    correlate. Each clip of a group is in a pair with another, and not each pair is named.

    Returns:
        The pairs, in order.
    """
    firsts: dict[bytes, int] = {}
    copies = []
    for at, clip in enumerate(audio):
        first = firsts.setdefault(clip.digest, at) if clip.digest else at
        if first != at:
            copies.append(Copy(first, at, True, clip.seconds, 1.0, 0.0, 1.0))
    distinct = [k for k, clip in enumerate(audio) if firsts.get(clip.digest, k) == k]
    shifts: dict[int, dict[int, float]] = defaultdict(dict)
    for match in find_matches([audio[k].words for k in distinct]):
        first, second = distinct[match.first], distinct[match.second]
        if _follows(shifts, first, second, match.shift):
            continue
        correlation, shift = _correlation(match, first, second, waveforms)
        if correlation >= MIN_CORRELATION:
            copies.append(
                Copy(first, second, False, match.seconds, match.share, shift, correlation)
            )
            shifts[first][second], shifts[second][first] = shift, -shift
    return sorted(copies)


def _follows(shifts: dict[int, dict[int, float]], first: int, second: int, shift: float) -> bool:
    """Whether pairs with a third clip say of many copies that two of them are at this place, so
    that those of one sound are not all read against each other."""
    if len(shifts[second]) < _MOST_PAIRS:
        return False
    return any(
        abs(shifts[first][third] - by - shift) <= _LAG / SAMPLE_RATE
        for third, by in shifts[second].items()
        if third in shifts[first]
    )


def grouped(copies: Iterable[Copy]) -> list[list[int]]:
    """Positions that hang together by the pairs, in groups, in order."""
    parent: dict[int, int] = {}

    def root(at: int) -> int:
        while (above := parent.setdefault(at, at)) != at:
            parent[at] = parent[above]
            at = above
        return at

    for copy in copies:
        one, two = sorted((root(copy.first), root(copy.second)))
        parent[two] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for at in sorted(parent):
        groups[root(at)].append(at)
    return list(groups.values())


def pairs_of(copies: Iterable[Copy]) -> dict[int, list[Copy]]:
    """The pairs that each position is in."""
    pairs: dict[int, list[Copy]] = defaultdict(list)
    for copy in copies:
        pairs[copy.first].append(copy)
        pairs[copy.second].append(copy)
    return pairs


def with_sound_of(
    targets: Iterable[int], copies: Iterable[Copy], audio: Sequence[ClipAudio]
) -> set[int]:
    """Positions that have sound in common with one of some targets, these included.

    A pair says so of its two clips. Clips that hang together by other pairs alone are held against
    each other: what is in a long clip need not be in another part of it.
    """
    pairs = pairs_of(copies)
    # Of each the target that it was found by, and how much later the sound is in it.
    found = {at: (at, 0.0) for at in targets}
    order = deque(found)
    while order:
        at = order.popleft()
        target, shift = found[at]
        for copy in pairs[at]:
            other, by = copy.other(at), shift + copy.later_in_other(at)
            if other not in found and (at == target or _in_common(audio[other], audio[target], by)):
                found[other] = target, by
                order.append(other)
    # A clip with sound of several targets was found by one of them.
    known = {target for target, _ in found.values()}
    found_later = {at for at in pairs if at not in found and _reaches(at, known, pairs, audio)}
    return found_later.union(found)


def _reaches(
    start: int, targets: set[int], pairs: dict[int, list[Copy]], audio: Sequence[ClipAudio]
) -> bool:
    """Whether pairs of clips that have sound of the first one lead from it to a target."""
    shifts = {start: 0.0}
    order = deque([start])
    while order:
        at = order.popleft()
        for copy in pairs[at]:
            other, by = copy.other(at), shifts[at] + copy.later_in_other(at)
            # A pair says of its own two clips that they have sound in common.
            if other not in shifts and (at == start or _in_common(audio[other], audio[start], by)):
                if other in targets:
                    return True
                shifts[other] = by
                order.append(other)
    return False


def _in_common(one: ClipAudio, two: ClipAudio, shift: float) -> bool:
    # Short sounds have no words, and equal samples need none.
    equal = one.digest == two.digest and bool(one.digest)
    return equal or in_common(one.words, two.words, shift)


def _correlation(
    match: Match, first: int, second: int, waveforms: Waveforms
) -> tuple[float, float]:
    """Read what two clips may have in common: the correlation, and the shift to the sample."""
    start = round(match.begin * SAMPLE_RATE)
    length = min(round(match.end * SAMPLE_RATE) - start, _MOST_SECONDS * SAMPLE_RATE)
    back = start - round(match.shift * SAMPLE_RATE)
    one = waveforms.read(first, start, start + length)
    two = waveforms.read(second, back - _LAG, back + length + _LAG)
    correlation, lag = correlate(one, two)
    return correlation, (start - (back - _LAG + lag)) / SAMPLE_RATE


def correlate(one: NDArray[np.float32], two: NDArray[np.float32]) -> tuple[float, int]:
    """How far one waveform is the other, at one place for all of it.

    Of two tones of nearly the same pitch, the best place differs from second to second, and in
    noise around one tone the other bands say nothing.

    Args:
        one: ``[n]``.
        two: ``[n + 2 k]``, somewhere in which it is looked for.

    Returns:
        The correlation of the waveforms, without its sign, where it is largest, or the median of
        those of the bands of the fingerprint there if that is less, in [0, 1]; and that place.
    """
    # Differences, or the lowest tone would decide alone.
    one, two = np.diff(one), np.diff(two)
    size = 2 ** (len(two) - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(two, size) * np.conj(np.fft.rfft(one, size)), size)
    lag = int(np.abs(products[: len(two) - len(one) + 1]).argmax())
    spectra = [np.fft.rfft(wave) for wave in (one, two[lag : lag + len(one)])]
    edges = np.rint(BAND_EDGES * len(one) / SAMPLE_RATE).astype(int)
    bands = [_coherence(*(s[low:high] for s in spectra)) for low, high in pairwise(edges)]
    return min(_coherence(*spectra), float(np.median(bands))), lag


def _coherence(one: NDArray[np.complexfloating], two: NDArray[np.complexfloating]) -> float:
    power = float(np.linalg.norm(one)) * float(np.linalg.norm(two))
    return float(abs(np.vdot(one, two).real)) / power if power else 0.0
