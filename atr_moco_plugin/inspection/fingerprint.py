"""A waveform as a row of 32-bit words, which say how its spectrum moves and little else.

J. Haitsma, T. Kalker, *A Highly Robust Audio Fingerprinting System*, ISMIR 2002. Each bit tells
whether the energy of a band grows more than that of the band above it. Level and polarity change no
bit; another sampling rate, a lossy format or noise change some. Two recordings that have nothing to
do with each other differ in half of the bits, also where both are noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

Words = NDArray[np.uint32]
"""``[n]``, a word every :data:`SECONDS_A_WORD`; 0 where there is nothing to hear."""

SAMPLE_RATE = 8000
"""Hz of the waveforms that fingerprints are made of."""

_FRAME = 2048  # samples of a spectrum: 0.256 s, so that a cut between two of them changes little
_HOP = 128
_LAG = 6  # spectra from one to the one that it is compared with: 0.096 s
_BANDS = 33
_QUIET = 1e-6  # energy below that of the loudest spectrum, 60 dB, that a lossy format may drop
_SPECTRA = 1024  # that are made at once

BAND_EDGES = np.geomspace(250, 3500, _BANDS + 1)
"""``[34]`` Hz, from the lowest to what telephones and files of 8 kHz keep."""

SECONDS_A_WORD = _HOP / SAMPLE_RATE
"""Seconds from one word to the next."""

SECONDS_OF_A_WORD = (_FRAME + _LAG * _HOP) / SAMPLE_RATE
"""Seconds that a word is made of."""

_WINDOW = torch.hann_window(_FRAME)
_EDGES = np.rint(BAND_EDGES * _FRAME / SAMPLE_RATE)
_BAND_OF = torch.from_numpy(np.searchsorted(_EDGES, np.arange(_FRAME // 2 + 1), side="right") - 1)
_IN_BAND = (_BAND_OF == torch.arange(_BANDS)[:, None]).float()


def fingerprint(blocks: Iterable[NDArray[np.float32]]) -> Words:
    """The words of a waveform, in memory that does not grow with its length but for the words.

    A word looks at 0.35 s; a waveform that is shorter has none.

    Args:
        blocks: ``[n]`` float32 each, at :data:`SAMPLE_RATE`; together the waveform.

    Returns:
        ``[n]`` uint32, 0 where the sound is 60 dB below the loudest part.
    """
    words, powers = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
    loudest = np.float32(0)
    energies: NDArray[np.float32] = np.zeros((0, _BANDS), np.float32)
    for more in _band_energies(blocks):
        energies = np.concatenate([energies[-_LAG:], more])
        total = energies.sum(axis=1)
        loudest = max(loudest, total.max())
        slope = energies[:, :-1] - energies[:, 1:]
        grows = slope[_LAG:] > slope[:-_LAG]
        words.append(np.packbits(grows, axis=1).view(">u4").reshape(-1).astype(np.uint32))
        powers.append(np.minimum(total[_LAG:], total[:-_LAG]))
    heard = np.concatenate(powers) > _QUIET * loudest
    # A word that is 0 by its bits becomes 1, since 0 says that there is none.
    return np.where(heard, np.maximum(np.concatenate(words), 1), 0).astype(np.uint32)


def _band_energies(blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """``[spectra, bands]``, a spectrum every ``_HOP`` samples."""
    kept = torch.zeros(0)
    for block in blocks:
        kept = torch.cat([kept, torch.from_numpy(block)])
        while (number := min(_SPECTRA, (len(kept) - _FRAME) // _HOP + 1)) > 0:
            part = kept[: _FRAME + (number - 1) * _HOP]
            spectra = torch.stft(
                part, _FRAME, _HOP, window=_WINDOW, center=False, return_complex=True
            )
            yield (_IN_BAND @ torch.view_as_real(spectra).square().sum(dim=-1)).T.numpy()
            kept = kept[number * _HOP :]
