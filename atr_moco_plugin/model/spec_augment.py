"""SpecAugment: bands of time and frequency masked out of a spectrogram.

Park et al., *SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition*,
Interspeech 2019, section 2, without time warping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.errors import InputError


@dataclass(kw_only=True, frozen=True)
class SpecAugmentConfig(Config):
    """Number and greatest width of the masks of every clip."""

    time_masks: int = 2
    """Masks over frames (m_T)."""

    time_width: int = 64
    """Greatest width of one in frames (T); BEATs has 100 frames a second."""

    time_fraction: float = 0.2
    """Greatest width of one as a share of the clip (p), which keeps short clips from vanishing."""

    freq_masks: int = 2
    """Masks over frequency bins (m_F)."""

    freq_width: int = 16
    """Greatest width of one in bins (F); BEATs has 128 bins."""

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "time_masks", "time_width", "freq_masks", "freq_width", least=0)
        yield from in_range(self, "time_fraction", least=0, most=1)


def spec_augment(spectrogram: Tensor, frames: Tensor, config: SpecAugmentConfig) -> Tensor:
    """Mask every clip's spectrogram at its own random places.

    Widths are drawn uniformly from 0 to the greatest and then the place uniformly from where the
    mask fits, with the global generator of the spectrogram's device, whose state hosts keep in
    their checkpoints.

    Args:
        spectrogram: ``[B, frames, bins]``, not written to.
        frames: ``[B]`` integer, valid frames of each clip, on any device. Masks over time stay
            within them, and those over frequency are as wide in time.
        config: the masks.

    Returns:
        A new ``[B, frames, bins]`` with 0 under the masks, the mean of normalised features.
    """
    b, length, bins = spectrogram.shape
    device = spectrogram.device
    valid = frames.to(device, torch.float32, non_blocking=True).unsqueeze(1)
    widest = (config.time_fraction * valid).clamp(max=config.time_width)
    masked = _bands(length, valid, widest, config.time_masks).unsqueeze(2)
    whole = torch.full_like(valid, bins)
    widest = whole.clamp(max=config.freq_width)
    masked = masked | _bands(bins, whole, widest, config.freq_masks).unsqueeze(1)
    inside = torch.arange(length, device=device) < valid
    return spectrogram.masked_fill(masked & inside.unsqueeze(2), 0.0)


def _bands(size: int, within: Tensor, widest: Tensor, count: int) -> Tensor:
    """``[B, size]`` bool: the union of ``count`` bands of each row.

    Args:
        size: columns.
        within: ``[B, 1]``, the bands lie in the first that many columns.
        widest: ``[B, 1]``, a band covers at most that many.
        count: bands a row.
    """
    draws = torch.rand(2, len(within), count, device=within.device)
    width = (draws[0] * (widest.floor() + 1)).floor()
    start = (draws[1] * (within - width + 1)).floor()
    column = torch.arange(size, device=within.device)[:, None]
    return ((column >= start[:, None]) & (column < (start + width)[:, None])).any(dim=2)


def check_spec_augment(config: SpecAugmentConfig | None, encoder: Any) -> None:
    """Refuse masks for an audio encoder that has no features to mask.

    Args:
        config: the masks, or ``None`` for none.
        encoder: the audio encoder.

    Raises:
        InputError: it has none.
    """
    if config is not None and not hasattr(encoder, "features"):
        raise InputError(
            f"`model.spec_augment` masks features, but {type(encoder).__name__} has no "
            "`features(waveforms, lengths)`; leave it out or take another audio encoder."
        )


def masked_features(features: Any, config: SpecAugmentConfig) -> Any:
    """Features with masks over the frames that valid tokens cover.

    Args:
        features: a named tuple with ``fbank [B, frames, bins]`` and ``mask [B, T]`` bool.
        config: of the masks.

    Raises:
        InputError: the features are something else.
    """
    if not all(hasattr(features, x) for x in ("fbank", "mask", "_replace")):
        raise InputError(
            "`model.spec_augment` needs features that are a named tuple with `fbank` and `mask`, "
            f"but the audio encoder's are a {type(features).__name__}: leave it out or take "
            "another audio encoder."
        )
    counts = features.mask.sum(dim=1)
    frames = -(-features.fbank.size(1) * counts // features.mask.size(1))
    return features._replace(fbank=spec_augment(features.fbank, frames, config))
