"""Pairs of clips that have sound in common: found by fingerprints, and held against each other."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.inspection.clip_audio import ClipAudio
from atr_moco_plugin.inspection.decoding import read_stretch
from atr_moco_plugin.inspection.fingerprint import SAMPLE_RATE
from atr_moco_plugin.inspection.matching import Match, find_matches

MIN_CORRELATION = 0.5
"""Correlation of the two waveforms, in most seconds, from which on they are one recording. Copies
have 0.8 and more, and two sirens of one kind, whose fingerprints are alike, 0.3 and less."""

_MOST_SECONDS = 10  # of a match that are held against each other
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
        correlation: of the two waveforms over it, the median over its seconds.
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
    for match in find_matches([audio[k].words for k in distinct]):
        first, second = distinct[match.first], distinct[match.second]
        correlation = _correlation(match, first, second, waveforms)
        if correlation >= MIN_CORRELATION:
            copies.append(
                Copy(first, second, False, match.seconds, match.share, match.shift, correlation)
            )
    return sorted(copies)


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


def _correlation(match: Match, first: int, second: int, waveforms: Waveforms) -> float:
    """The largest correlation near the place that fingerprints found, at one lag for all of it: a
    tone of nearly the same pitch has another lag in each second."""
    start = round(match.begin * SAMPLE_RATE)
    length = min(round(match.end * SAMPLE_RATE) - start, _MOST_SECONDS * SAMPLE_RATE)
    shift = round(match.shift * SAMPLE_RATE)
    one = waveforms.read(first, start, start + length)
    two = waveforms.read(second, start - shift - _LAG, start - shift + length + _LAG)
    # Differences, or the lowest tone would decide alone.
    return _largest(*(np.diff(wave.astype(np.float64)) for wave in (one, two)))


def _largest(part: NDArray[np.float64], around: NDArray[np.float64]) -> float:
    """The largest correlation, of either sign, of a part with the stretches as long around it."""
    size = 2 ** (len(around) - 1).bit_length()
    spectrum = np.fft.rfft(around, size) * np.conj(np.fft.rfft(part, size))
    products = np.fft.irfft(spectrum, size)[: len(around) - len(part) + 1]
    sums = np.concatenate([[0.0], np.cumsum(np.square(around))])
    powers = np.sum(np.square(part)) * (sums[len(part) :] - sums[: -len(part)])
    ratios = np.square(products) / np.maximum(powers, 1e-12)
    return float(np.sqrt(ratios.max()))
