"""BEATs in operations that ``torch.export`` traces for clips of any number and length.

The encoder itself counts tokens on the host and takes windows of tensors, whose sizes a trace would
fix. Here the same numbers come from tensors: frames are gathered by their indices, and the spectrum
of a frame is its product with a matrix.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from atr_moco_plugin.encoders.beats.fbank import (
    FFT_SIZE,
    FRAME_LENGTH,
    FRAME_SHIFT,
    INT16_SCALE,
    MEL_BINS,
    PREEMPHASIS,
    mel_filterbank,
    normalised,
    povey_window,
)
from atr_moco_plugin.encoders.beats.features import BeatsFeatures
from atr_moco_plugin.encoders.beats.relative_position import (
    RelativePositionBias,
    distance_buckets,
)
from atr_moco_plugin.tokens import AudioTokens

# One hour: a trace needs a bound for a number that it reads from a tensor.
_MOST_STEPS = 3600 * 100


class TraceableBeats(nn.Module):
    """A copy of an encoder, to be traced.

    A clip has the states that it has alone, whichever padding mask the encoder has. Those of a clip
    that is too short for one token are NaN.

    Args:
        encoder: in eval mode, on the CPU.
    """

    spectrum: Tensor
    triangles: Tensor

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.patch = encoder.config.input_patch_size
        bias = self.encoder.encoder.relative_attention_bias
        if bias is not None:
            traceable = _TraceableBias(bias)
            self.encoder.encoder.relative_attention_bias = traceable
        self.register_buffer("spectrum", _spectrum())
        self.register_buffer("triangles", _triangles())

    def forward(self, waveforms: Tensor, lengths: Tensor) -> AudioTokens:
        """``[B, samples]`` float32 and ``[B]`` int64 to tokens, as the encoder makes them."""
        steps = (1 + (lengths - FRAME_LENGTH) // FRAME_SHIFT) // self.patch
        longest: Any = steps.max().item()  # not `int(...)`, which a trace would fix
        torch._check(longest >= 1)
        torch._check(longest <= _MOST_STEPS)
        bands = MEL_BINS // self.patch
        mask = torch.arange(longest * bands) < (steps * bands)[:, None]
        features = BeatsFeatures(self._fbank(waveforms, longest * self.patch), mask, True)
        states, _ = self.encoder(features=features)
        return AudioTokens(states.masked_fill((steps < 1)[:, None, None], math.nan), mask)

    def _fbank(self, waveforms: Tensor, count: int) -> Tensor:
        """The first ``count`` frames of :func:`~atr_moco_plugin.encoders.beats.fbank.fbank`."""
        indices = torch.arange(count)[:, None] * FRAME_SHIFT + torch.arange(FRAME_LENGTH)
        frames = (waveforms * INT16_SCALE)[:, indices]
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        parts = (frames - PREEMPHASIS * before) @ self.spectrum
        real, imaginary = parts.square().chunk(2, -1)
        config = self.encoder.config
        energies = (real + imaginary) @ self.triangles
        return normalised(energies, config.fbank_mean, config.fbank_std)


class _TraceableBias(nn.Module):
    """:class:`RelativePositionBias` by an index for each pair of tokens."""

    buckets: Tensor

    def __init__(self, bias: RelativePositionBias) -> None:
        super().__init__()
        self.weight = bias.weight
        self.farthest = bias.max_distance
        buckets = distance_buckets(bias.weight.size(0), self.farthest, bias.weight.device)
        self.register_buffer("buckets", buckets)

    def forward(self, tokens: int) -> Tensor:
        place = torch.arange(tokens)
        distance = (place - place[:, None]).clamp(-self.farthest, self.farthest) + self.farthest
        return embedding(self.buckets[distance], self.weight).permute(2, 0, 1)


def _spectrum() -> Tensor:
    """Window and Fourier transform of a frame: ``[400, 512]`` float32, the real parts of 256 bins
    and then the imaginary ones. The Nyquist bin is in no mel band."""
    angles = torch.arange(FRAME_LENGTH)[:, None] * torch.arange(FFT_SIZE // 2) % FFT_SIZE
    turns = angles.double() * (2 * math.pi / FFT_SIZE)
    window = povey_window(torch.device("cpu"))[:, None]
    return (torch.cat([turns.cos(), turns.sin()], 1) * window).float()


def _triangles() -> Tensor:
    """:func:`~atr_moco_plugin.encoders.beats.fbank.mel_filterbank` whole: ``[256, 128]``."""
    whole = torch.zeros(FFT_SIZE // 2, MEL_BINS)
    for bins, bands, triangles in mel_filterbank(torch.device("cpu")):
        whole[bins, bands] = triangles
    return whole
