"""BEATs' input features: Kaldi's log mel filterbank of a whole batch at once, normalised.

Definitions follow Kaldi's ``feature-window.cc`` and ``mel-computations.cc``
(https://kaldi-asr.org/doc/feat.html), with the options of the BEATs paper, section 4.1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

SAMPLE_RATE = 16_000
"""Hz."""

FRAME_LENGTH = 400
"""Samples in a frame: 25 ms."""

FRAME_SHIFT = 160
"""Samples from one frame to the next: 10 ms."""

MEL_BINS = 128
"""Features of a frame."""

_FFT_SIZE = 512
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97
_INT16_SCALE = 2.0**15

# Mean and standard deviation over AudioSet; the official code divides by twice the latter.
_MEAN = 15.41663
_STD = 6.55582


def fbank(waveforms: Tensor) -> Tensor:
    """BEATs' normalised log mel filterbank.

    Runs in float32 outside autocast, since in half precision its power spectrum overflows.
    Silence becomes about -2.39, not 0.

    Args:
        waveforms: ``[B, samples]`` floating point in [-1, 1] at 16 kHz, on any device.

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
    with torch.autocast(waveforms.device.type, enabled=False):
        frames = (waveforms.float() * _INT16_SCALE).unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
        frames = frames - frames.mean(-1, keepdim=True)
        # Kaldi takes the sample before a frame's first one to be that first one.
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - _PREEMPHASIS * previous) * _povey_window(waveforms.device)
        power = torch.fft.rfft(frames, n=_FFT_SIZE).abs().square()
        energies = power @ _mel_filterbank(waveforms.device)
        log_mel = energies.clamp_min(torch.finfo(torch.float32).eps).log()
        return (log_mel - _MEAN) / (2 * _STD)


# A constant first made under inference mode could not take part in a later gradient.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _povey_window(device: torch.device) -> Tensor:
    """Povey's window, a Hann window to the power 0.85: ``[400]`` float32."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, device="cpu").pow(0.85).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _mel_filterbank(device: torch.device) -> Tensor:
    """Triangles evenly spaced on the mel scale, 20 Hz to 8 kHz: ``[257, 128]`` float32."""
    lowest, highest = (1127.0 * math.log1p(hz / 700.0) for hz in (_LOWEST_HZ, SAMPLE_RATE / 2))
    step = (highest - lowest) / (MEL_BINS + 1)
    bin_hz = SAMPLE_RATE / _FFT_SIZE * torch.arange(_FFT_SIZE // 2, device="cpu")
    bin_mel = 1127.0 * (1.0 + bin_hz / 700.0).log()
    band = torch.arange(MEL_BINS, device="cpu")
    left, center, right = (lowest + (band + offset) * step for offset in (0.0, 1.0, 2.0))
    rising = (bin_mel[:, None] - left) / (center - left)
    falling = (right - bin_mel[:, None]) / (right - center)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    # Kaldi leaves the Nyquist bin out.
    return pad(triangles, (0, 0, 0, 1)).to(device)
