"""Features of ``ClapFeatureExtractor``: what is drawn at random comes from a seed of the clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import ClapFeatureExtractor


def clip_features(
    extractor: ClapFeatureExtractor, waveform: NDArray[np.float32], seed: int
) -> Tensor:
    """Features of one clip, a function of the waveform and the seed alone.

    Args:
        extractor: draws the crops of longer clips from numpy's global random state, which is as
            before afterwards.
        waveform: ``[samples]`` at the extractor's rate.
        seed: from 0 to ``2**32 - 1``.

    Returns:
        ``[crops, frames, mels]`` float32.
    """
    with _draws_from(seed):
        features = extractor([waveform], sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return features["input_features"][0].float()


def evaluation_features(
    extractor: ClapFeatureExtractor, waveform: NDArray[np.float32], windows: int
) -> Tensor:
    """Features of one clip without chance.

    With the truncation ``fusion`` the whole clip is in the features: it is shrunk, beside three
    crops at places that depend on its length alone. Otherwise a longer clip is cut into at most
    ``windows`` windows of the extractor's length, see :func:`window_starts`.

    Args:
        extractor: of the model.
        waveform: ``[samples]`` at the extractor's rate.
        windows: the most windows.

    Returns:
        ``[windows, crops, frames, mels]`` float32.
    """
    if extractor.truncation == "fusion":
        return clip_features(extractor, waveform, seed=0)[None]
    size = int(extractor.nb_max_samples)
    starts = window_starts(len(waveform), size, windows)
    parts = [waveform[start : start + size] for start in starts]
    return torch.stack([clip_features(extractor, part, seed=0) for part in parts])


def window_starts(total: int, size: int, most: int) -> list[int]:
    """Where the windows of a clip begin: the first at its beginning, the last so that it ends with
    the clip, the others evenly between; no more than it takes to cover the clip.

    Args:
        total: samples of the clip.
        size: samples of a window.
        most: the most windows, at least 1; one window is the beginning of the clip.
    """
    number = max(1, min(most, -(-total // size)))
    return [int(start) for start in np.linspace(0, max(0, total - size), number).round()]


def is_longer(extractor: ClapFeatureExtractor, total: int) -> bool:
    """Whether the extractor leaves something out of a clip of so many samples, as its ``is_longer``
    says. It also marks a clip at random where a batch has none; that is left to the caller."""
    size, hop = int(extractor.nb_max_samples), extractor.hop_length
    if extractor.truncation == "fusion":  # less than a frame more is no more
        return total > size and total // hop != size // hop
    return total > size


@contextmanager
def _draws_from(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
