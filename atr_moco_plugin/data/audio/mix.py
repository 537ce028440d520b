"""Mixtures of two training clips, whose captions are joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.config import Config, in_range

_ENDS = " \t\n.!;:,"


@dataclass(frozen=True)
class MixConfig(Config):
    """Which training clips get a second one added, and how.

    A mixture is said to be of both: it is a positive of the captions, and of the clips, of either.
    Adding sounds and joining captions is how small captioned sets are made larger (Wu et al. 2023,
    "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion"; Koizumi et al. 2021).

    Attributes:
        probability: share of clips that get a second one.
        level_db: the second is up to this much louder or softer than the first, by the root mean
            square of each.
        wordings: how two captions become one, each with two ``{}``; one is drawn. The default is
            English.
    """

    probability: float = 0.5
    level_db: float = 5.0
    wordings: tuple[str, ...] = ("{}, and {}", "{} and {}", "{}, {}")

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "probability", least=0, most=1)
        yield from in_range(self, "level_db", least=0, most=60)
        if not self.wordings:
            yield "`wordings` is empty, expected one wording or more with two {}."
        for wording in self.wordings:
            if wording.count("{}") != 2 or wording.replace("{}", "").count("{"):
                yield f"`wordings` has {wording!r}, expected two {{}} for the two captions."


def mix(
    first: NDArray[np.float32], second: NDArray[np.float32], level_db: float, place: float
) -> NDArray[np.float32] | None:
    """Add two waveforms; the shorter lies within the longer.

    A sum that would leave full scale is scaled down to it as a whole rather than clipped; where the
    first was beyond it from the start, its peak is kept.

    Args:
        first: ``[n]`` float32.
        second: ``[m]`` float32, of one sample rate with the first.
        level_db: root mean square of the second over that of the first.
        place: where the shorter begins, from 0, at the start, to 1, so that it ends with the
            longer.

    Returns:
        ``[max(n, m)]`` float32; ``None`` where one of them is silent and has no level.
    """
    # In double, as a waveform may be far beyond full scale.
    one, other = first.astype(np.float64), second.astype(np.float64)
    levels = [float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0 for x in (one, other)]
    if 0.0 in levels or not np.isfinite(levels).all():
        return None
    other *= levels[0] / levels[1] * 10 ** (level_db / 20)
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    start = round(place * (len(longer) - len(shorter)))
    total = longer.copy()
    total[start : start + len(shorter)] += shorter
    peak = max(1.0, float(np.abs(one).max()))
    loudest = float(np.abs(total).max())
    if loudest > peak:
        total *= peak / loudest
    mixed: NDArray[np.float32] = total.astype(np.float32)
    return mixed


def join_captions(first: str, second: str, wording: str) -> str:
    """Two captions as one sentence: ``A dog barks.`` and ``Rain falls.`` become, with the wording
    ``{}, and {}``, ``A dog barks, and rain falls.``

    Args:
        first: loses what ends a sentence.
        second: its first letter becomes small, unless the word has other capitals or is ``I``.
        wording: with two ``{}``.
    """
    second = second.strip()
    word = second.split(maxsplit=1)[0] if second else ""
    if word[1:] == word[1:].lower() and word.split("'")[0] != "I":
        second = second[:1].lower() + second[1:]
    # Not `format`: a caption may have braces of its own.
    before, between, after = wording.split("{}")
    return f"{before}{first.strip().rstrip(_ENDS)}{between}{second}{after}"
