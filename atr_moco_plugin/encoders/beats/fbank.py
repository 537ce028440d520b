"""BEATs' input features: Kaldi's log mel filterbank of a whole batch at once, normalised.

Definitions follow Kaldi's ``feature-window.cc`` and ``mel-computations.cc``
(https://kaldi-asr.org/doc/feat.html), with the options of the BEATs paper, section 4.1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
"""Hz."""

FRAME_LENGTH = 400
"""Samples in a frame: 25 ms."""

FRAME_SHIFT = 160
"""Samples from one frame to the next: 10 ms."""

MEL_BINS = 128
"""Features of a frame."""

FFT_SIZE = 512
"""Samples of a spectrum; a frame is followed by zeros."""

PREEMPHASIS = 0.97
"""Share of the sample before that is taken off each sample."""

INT16_SCALE = 2.0**15
"""Kaldi's full scale."""

_LOWEST_HZ = 20.0

# Frames worked on at a time on a CPU, so that they stay in its cache.
_BLOCK_FRAMES = 1000

# Three quarters of the filterbank are zeros: its bins from one of these to the next meet few bands.
_BIN_BORDERS = (0, 64, 128, 256)

# The official code divides by twice the standard deviation.
MEAN = 15.41663
"""Mean of log mel energies over AudioSet."""

STD = 6.55582
"""Their standard deviation."""


def fbank(waveforms: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """BEATs' normalised log mel filterbank.

    Runs in float32 outside autocast, since in half precision its power spectrum overflows.
    Silence becomes about -2.39, not 0.

    Args:
        waveforms: ``[B, samples]`` floating point in [-1, 1] at 16 kHz, on any device.
        mean: what is taken off log mel energies; the default is that of every official checkpoint.
        std: half of what they are divided by.

    Returns:
        ``[B, frames, 128]`` float32 with ``frames = 1 + (samples - 400) // 160``.

    Raises:
        ValueError: If ``waveforms`` is not a floating-point matrix, or has below 400 samples.
    """
    if waveforms.dim() != 2 or not waveforms.is_floating_point():
        raise ValueError(
            f"waveforms must be [B, samples] floating point in [-1, 1], got "
            f"{list(waveforms.shape)} {waveforms.dtype}; scale integer samples first."
        )
    if waveforms.size(1) < FRAME_LENGTH:
        raise ValueError(
            f"waveforms must have at least {FRAME_LENGTH} samples (one frame), "
            f"got {waveforms.size(1)}; pad them with zeros."
        )
    frames = 1 + (waveforms.size(1) - FRAME_LENGTH) // FRAME_SHIFT
    clips = waveforms.size(0)
    if waveforms.device.type == "cpu":
        clips = max(_BLOCK_FRAMES // frames, 1)
    with torch.autocast(waveforms.device.type, enabled=False):
        blocks = torch.split(waveforms, clips)
        return torch.cat([_features(block.float(), mean, std) for block in blocks])


def _features(waveforms: Tensor, mean: float, std: float) -> Tensor:
    """``fbank`` of float32 clips."""
    frames = (waveforms * INT16_SCALE).unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    count = frames.shape[:2]
    # In this order, which is Kaldi's: a pure tone leaves most bands to rounding.
    frames = (frames - frames.mean(-1, keepdim=True)).flatten(0, 1)
    before = frames * PREEMPHASIS
    padded = frames.new_zeros(frames.size(0), FFT_SIZE)
    # Kaldi takes the sample before a frame's first one to be that first one.
    padded[:, 0] = frames[:, 0] - before[:, 0]
    padded[:, 1:FRAME_LENGTH] = frames[:, 1:] - before[:, :-1]
    padded[:, :FRAME_LENGTH] *= povey_window(waveforms.device)
    spectrum = torch.fft.rfft(padded)
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    energies = power.new_zeros(power.size(0), MEL_BINS)
    for bins, bands, triangles in mel_filterbank(waveforms.device):
        energies[:, bands].addmm_(power[:, bins], triangles)
    features: Tensor = normalised(energies, mean, std).unflatten(0, count)
    return features


def normalised(energies: Tensor, mean: float, std: float) -> Tensor:
    """Mel energies to BEATs' features, in place: ``[..., 128]`` float32."""
    log_mel = energies.clamp_min_(torch.finfo(torch.float32).eps).log()
    features: Tensor = log_mel.sub_(mean).div_(2 * std)
    return features


# A constant first made under inference mode could not take part in a later gradient.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def povey_window(device: torch.device) -> Tensor:
    """Povey's window, a Hann window to the power 0.85: ``[400]`` float32."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, device="cpu").pow(0.85).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def mel_filterbank(device: torch.device) -> tuple[tuple[slice, slice, Tensor], ...]:
    """Triangles evenly spaced on the mel scale, 20 Hz to 8 kHz, in blocks that are not all zeros.

    Returns:
        FFT bins, mel bands and float32 weights ``[bins, bands]`` of each block. They overlap in
        bands, and leave out the Nyquist bin as Kaldi does.
    """
    lowest, highest = _mel(_LOWEST_HZ), _mel(SAMPLE_RATE / 2)
    step = (highest - lowest) / (MEL_BINS + 1)
    bin_hz = SAMPLE_RATE / FFT_SIZE
    bins = torch.arange(FFT_SIZE // 2, device="cpu")
    bin_mel = 1127.0 * (1.0 + bin_hz * bins / 700.0).log()
    band = torch.arange(MEL_BINS, device="cpu")
    left, center, right = (lowest + (band + offset) * step for offset in (0.0, 1.0, 2.0))
    rising = (bin_mel[:, None] - left) / (center - left)
    falling = (right - bin_mel[:, None]) / (right - center)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    blocks = []
    for first, end in pairwise(_BIN_BORDERS):
        # In steps from the lowest mel; a band is two steps wide.
        low, high = ((_mel(bin_hz * k) - lowest) / step for k in (first, end - 1))
        bands = slice(max(math.floor(low) - 1, 0), min(math.ceil(high), MEL_BINS))
        blocks.append((slice(first, end), bands, triangles[first:end, bands].to(device)))
    return tuple(blocks)


def _mel(hz: float) -> float:
    return 1127.0 * math.log1p(hz / 700.0)
