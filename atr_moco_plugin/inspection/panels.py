"""The figures of an inspection: how long captions and clips are, and how loud."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from atr_moco_plugin.inspection.report import Inspection
from atr_moco_plugin.report.figures import AUDIO, TEXT, Panel, panel, whole_numbers

_BINS = 40
_FLOOR = -90.0


def panels(inspection: Inspection) -> list[Panel]:
    """Histograms of all splits together: words and tokens a caption, seconds, peaks and levels."""
    captions = inspection.captions
    found = [
        _histogram(
            captions.words,
            "Words a caption",
            "Blanks tell words apart; one bar is one number of words, the last holds longer ones.",
            "captions",
            "words",
            TEXT,
            cut=True,
        )
    ]
    if captions.tokens is not None:
        found.append(
            _histogram(
                captions.tokens.lengths,
                "Tokens a caption",
                "Special tokens are counted; the last bar holds longer ones.",
                "captions",
                "tokens",
                TEXT,
                cut=True,
            )
        )
    clips = [clip for clip in inspection.audio or () if not clip.problem]
    if clips:
        found += [
            _histogram(
                np.array([clip.seconds for clip in clips]),
                "Seconds a clip",
                "Clips longer than max_seconds are cropped in training; the last bar holds longer "
                "ones.",
                "clips",
                "seconds",
                AUDIO,
                cut=True,
            ),
            _histogram(
                _decibels([clip.peak for clip in clips]),
                "Peak of a clip",
                "Largest sample in dB of full scale; a column at 0 is of clips brought to full "
                f"scale, or clipped. {_FLOOR:g} stands for all below.",
                "clips",
                "dB of full scale",
                AUDIO,
            ),
            _histogram(
                _decibels([clip.rms for clip in clips]),
                "Level of a clip",
                f"Root of the mean square in dB of full scale; {_FLOOR:g} stands for all below.",
                "clips",
                "dB of full scale",
                AUDIO,
            ),
        ]
    return found


def _decibels(levels: Sequence[float]) -> NDArray[np.float64]:
    kept = np.maximum(np.array(levels, dtype=np.float64), 10 ** (_FLOOR / 20))
    decibels: NDArray[np.float64] = 20 * np.log10(kept)
    return decibels


def _histogram(
    values: NDArray[np.int64] | NDArray[np.float64],
    title: str,
    aid: str,
    things: str,
    unit: str,
    color: str,
    *,
    cut: bool = False,
) -> Panel:
    """``cut`` puts the largest one in 1,000 into the last bar, so that none stretches the axis."""
    whole = np.issubdtype(values.dtype, np.integer)
    most = float(np.sort(values)[-1 - (len(values) // 1_000 if cut else 0)])
    kept = np.minimum(values, most)
    if whole:
        edges = np.arange(int(kept.min()), int(kept.max()) + 2) - 0.5
    else:
        low, high = float(kept.min()), float(kept.max())
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, _BINS + 1)

    def plot(axes: Axes) -> None:
        axes.set_axisbelow(True)
        axes.hist(kept, bins=edges.tolist(), color=color)
        axes.set_xlabel(unit)
        axes.set_ylabel(things)
        axes.yaxis.set_major_locator(whole_numbers())
        if whole:
            axes.xaxis.set_major_locator(whole_numbers())

    median = float(np.median(values))
    alt = (
        f"{title}: {len(values):,} {things} between {values.min():g} and {values.max():g} {unit}, "
        f"half of them below {median:g}."
    )
    return panel(title, aid, alt, plot)
