"""Features of ``ClapFeatureExtractor`` in an evaluation, without anything random."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import ClapFeatureExtractor

from atr_moco_plugin.data.audio.waveform import Samples
from atr_moco_plugin.model.clap import clip_features


def evaluation_features(extractor: ClapFeatureExtractor, waveform: Samples, windows: int) -> Tensor:
    """Features of one clip, without anything random.

    With the truncation ``fusion`` the whole clip is in the features: they hold it shrunk, and three
    crops at places that depend on its length alone. Otherwise a longer clip is cut into at most
    ``windows`` windows of the extractor's length, see :func:`window_starts`.

    Args:
        extractor: of the model.
        waveform: ``[samples]`` at the extractor's rate.
        windows: largest number of windows.

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
    """First sample of each window of a clip. The first window begins with the clip, the last ends
    with it, the others lie evenly between; there are no more than it takes to cover the clip.

    Args:
        total: samples of the clip.
        size: samples of a window.
        most: largest number of windows, at least 1; one window is the beginning of the clip.
    """
    number = max(1, min(most, -(-total // size)))
    return [int(start) for start in np.linspace(0, max(0, total - size), number).round()]


def is_longer(extractor: ClapFeatureExtractor, total: int) -> bool:
    """Whether the extractor leaves something out of a clip with ``total`` samples, as its
    ``is_longer`` says. The extractor also marks one clip at random where a batch has no longer one;
    that is left to the caller."""
    size, hop = int(extractor.nb_max_samples), extractor.hop_length
    if extractor.truncation == "fusion":  # less than a frame more is no more
        return total > size and total // hop != size // hop
    return total > size
