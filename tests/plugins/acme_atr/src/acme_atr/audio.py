from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atr_moco_plugin.errors import InputError
from atr_moco_plugin.tokens import AudioTokens

BINS = 64
STRIDE = 4  # of each of the two convolutions


@dataclass(kw_only=True)
class CnnConfig:
    width: int = 64
    sample_rate: int = 16_000  # a multiple of 200 Hz, so that hop and window are whole samples

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"`width` is {self.width}, expected 1 or more.")
        if self.sample_rate % 200:
            raise InputError(f"`sample_rate` is {self.sample_rate}, expected a multiple of 200.")


class Cnn(nn.Module):
    """Two convolutions on a log-mel spectrogram; a token is 160 ms."""

    config_class = CnnConfig

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.sample_rate = config.sample_rate
        self.hop, window = self.sample_rate // 100, self.sample_rate // 40  # 10 and 25 ms
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("mel", mel_filters(window, self.sample_rate / 2), persistent=False)
        self.first = nn.Conv1d(BINS, self.width, 5, stride=STRIDE, padding=2)
        self.second = nn.Conv1d(self.width, self.width, 5, stride=STRIDE, padding=2)

    @classmethod
    def from_config(cls, config: CnnConfig) -> Cnn:
        return cls(config)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> AudioTokens:
        if lengths is None:
            lengths = torch.full_like(waveforms[:, 0], waveforms.size(1), dtype=torch.int64)
        frames = lengths // self.hop + 1
        spectrum = torch.stft(
            waveforms,
            len(self.window),
            self.hop,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        x = (self.mel @ spectrum.abs().square()).clamp(min=1e-6).log()
        # What is beyond the end of a clip is zero for every layer, so that padding changes nothing.
        x = x * valid(frames, x.size(2))[:, None]
        x = nn.functional.gelu(self.first(x))
        frames = -(-frames // STRIDE)
        x = nn.functional.gelu(self.second(x * valid(frames, x.size(2))[:, None]))
        return AudioTokens(x.transpose(1, 2), valid(-(-frames // STRIDE), x.size(2)))


def valid(counts: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=counts.device) < counts[:, None]


def mel_filters(window: int, highest: float) -> Tensor:
    """Triangles up to `highest` Hz, equally wide on the mel scale: `[BINS, window // 2 + 1]`."""
    top = 2595 * torch.log10(torch.tensor(1 + highest / 700))
    edges = 700 * (10 ** (torch.linspace(0, float(top), BINS + 2) / 2595) - 1)
    hertz = torch.linspace(0, highest, window // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return torch.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)).clamp(0)
