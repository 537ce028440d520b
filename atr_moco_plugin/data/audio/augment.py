"""Random changes of training waveforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atr_moco_plugin.config import Config, in_range


@dataclass(frozen=True)
class AugmentConfig(Config):
    """What :func:`augment` does; by default nothing.

    Mixing two clips is another option, see ``mix`` of the loader.

    Attributes:
        gain_db: the level changes by up to this, up or down.
        noise_probability: share of clips that get white noise.
        noise_min_snr_db: loudest noise, as a signal-to-noise ratio over the clip.
        noise_max_snr_db: softest noise.
        shift_seconds: the clip is rolled by up to this, in either direction; what leaves at one end
            comes in at the other.
        invert_probability: share of clips whose polarity is inverted. An encoder that takes a power
            spectrum, such as BEATs, does not notice.
    """

    gain_db: float = 0.0
    noise_probability: float = 0.0
    noise_min_snr_db: float = 10.0
    noise_max_snr_db: float = 40.0
    shift_seconds: float = 0.0
    invert_probability: float = 0.0

    def problems(self) -> Iterator[str]:
        yield from in_range(self, "gain_db", "shift_seconds", least=0)
        yield from in_range(self, "noise_probability", "invert_probability", least=0, most=1)
        low, high = self.noise_min_snr_db, self.noise_max_snr_db
        if not -100 <= low <= high <= 100:
            yield (
                f"`noise_min_snr_db` is {low} and `noise_max_snr_db` {high}, expected "
                "-100 <= min <= max <= 100."
            )

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return any(
            (self.gain_db, self.noise_probability, self.shift_seconds, self.invert_probability)
        )


def augment(
    waveform: NDArray[np.float32],
    config: AugmentConfig,
    sample_rate: int,
    generator: torch.Generator,
) -> NDArray[np.float32]:
    """Shift, add noise, invert and change the level, in this order.

    A result that would leave full scale is scaled down to it as a whole rather than clipped; a
    waveform that was beyond it from the start keeps its peak. Silence stays silent.

    Args:
        waveform: ``[n]`` float32, not written to.
        config: what to do.
        sample_rate: of ``waveform``, in Hz.
        generator: a CPU generator. Equal states give equal results.

    Returns:
        ``[n]`` float32, finite if ``waveform`` is.
    """
    # In double, since noise may be far louder than a waveform that is far beyond full scale.
    wave = torch.from_numpy(waveform.astype(np.float64))
    peak = float(wave.abs().max()) if wave.numel() else 0.0
    # Always as many draws, so that turning one change off does not alter the others.
    shift, chance, snr, sign, gain = torch.rand(5, generator=generator).tolist()

    limit = min(round(config.shift_seconds * sample_rate), wave.numel())
    wave = wave.roll(round((2 * shift - 1) * limit))
    if chance < config.noise_probability:
        spread = config.noise_max_snr_db - config.noise_min_snr_db
        wave = _with_noise(wave, config.noise_min_snr_db + snr * spread, generator)
    if sign < config.invert_probability:
        wave = -wave
    wave = wave * 10 ** ((2 * gain - 1) * config.gain_db / 20)

    loudest = float(wave.abs().max()) if wave.numel() else 0.0
    full_scale = max(1.0, peak)
    if loudest > full_scale:
        wave = wave * (full_scale / loudest)
    changed: NDArray[np.float32] = wave.numpy().astype(np.float32)
    return changed


def _with_noise(wave: Tensor, snr_db: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(wave.shape, generator=generator).double()
    power = wave.square().mean()
    return wave + noise * float((power / 10 ** (snr_db / 10)).sqrt())
