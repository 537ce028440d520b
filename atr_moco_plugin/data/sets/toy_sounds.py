"""Sixteen synthetic sounds that differ in spectrum and in rhythm, at any pitch.

Each is a pure function of (length, pitch factor, random generator). Frequencies below are in Hz at
pitch factor 1 and times in seconds; a factor of 0.6 to 1.7 keeps every one below 8 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Hz at which the sounds are made, whatever rate they are then read at."""

Wave = NDArray[np.float32]
Synthesizer = Callable[[int, float, np.random.Generator], Wave]

_FADE = 160


def _seconds(n: int) -> Wave:
    return np.arange(n, dtype=np.float32) / np.float32(SAMPLE_RATE)


def _phase(frequency: float | Wave, n: int) -> Wave:
    """Phase in cycles, in [0, 1); float64 inside, since float32 loses a long sound's phase."""
    if isinstance(frequency, np.ndarray):
        cycles = np.cumsum(frequency, dtype=np.float64) / SAMPLE_RATE
    else:
        cycles = np.arange(n, dtype=np.float64) * (frequency / SAMPLE_RATE)
    phase: Wave = (cycles - np.floor(cycles)).astype(np.float32)
    return phase


def _sine(phase: Wave) -> Wave:
    wave: Wave = np.sin(np.float32(2 * np.pi) * phase)
    return wave


def _noise(n: int, rng: np.random.Generator) -> Wave:
    return rng.random(n, dtype=np.float32) * np.float32(2) - np.float32(1)


def _band_noise(n: int, center: float, octaves: float, rng: np.random.Generator) -> Wave:
    """Noise with a bell-shaped spectrum over log frequency, ``octaves`` its standard deviation."""
    spectrum = np.fft.rfft(_noise(n, rng))
    frequency = np.arange(1, spectrum.shape[0] + 1, dtype=np.float32) * (SAMPLE_RATE / n)
    shape = np.exp(-0.5 * (np.log2(frequency / np.float32(center)) / octaves) ** 2)
    return np.fft.irfft(spectrum * shape, n).astype(np.float32)


def _since(n: int, period: float) -> Wave:
    """Seconds since the last multiple of ``period``."""
    time = _seconds(n)
    since: Wave = time - np.floor(time / np.float32(period)) * np.float32(period)
    return since


def _place(n: int, hits: Iterable[tuple[float, Wave]]) -> Wave:
    """Add short waves at times in seconds; what lies beyond the end is cut."""
    out = np.zeros(n, dtype=np.float32)
    for time, wave in hits:
        start = int(time * SAMPLE_RATE)
        stop = min(n, start + wave.shape[0])
        if start < n:
            out[start:stop] += wave[: stop - start]
    return out


def _ping(frequency: float, decay: float, most: int | None = None) -> Wave:
    """A decaying sine, cut at -43 dB or at ``most`` samples."""
    n = int(5 * decay * SAMPLE_RATE)
    n = n if most is None else min(n, most)
    wave: Wave = _sine(_phase(frequency, n)) * np.exp(-_seconds(n) / np.float32(decay))
    return wave


def _siren(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    swing = np.sin(2 * np.pi * (1.1 * _seconds(n) + np.float32(rng.random())))
    phase = _phase(np.float32(800 * pitch) * np.exp2(np.float32(0.55) * swing), n)
    wave: Wave = _sine(phase) + np.float32(0.4) * _sine(2 * phase)
    return wave + np.float32(0.2) * _sine(3 * phase)


# Frequency ratio, level and decay time.
_BELL_PARTIALS = ((1, 1, 0.9), (2, 0.7, 0.7), (2.76, 0.6, 0.5), (4.1, 0.4, 0.35), (5.4, 0.3, 0.2))


def _bell(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    strike = np.zeros(n, dtype=np.float32)
    for ratio, level, decay in _BELL_PARTIALS:
        wave = _ping(520 * pitch * ratio, decay, n)
        strike[: wave.shape[0]] += np.float32(level) * wave
    return _place(n, ((0.0, strike), (0.75 + 0.1 * rng.random(), strike)))


def _dog(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    length = int(0.17 * SAMPLE_RATE)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    glide = np.float32(430 * pitch) * (np.float32(1.3) - np.float32(0.6) * ramp)
    saw = 2 * _phase(glide, length) - 1
    bark = (saw + np.float32(0.35) * _noise(length, rng)) * np.sin(np.float32(np.pi) * ramp)
    gap = 0.36 + 0.06 * rng.random()
    return _place(n, ((gap * k, bark) for k in range(int(n / SAMPLE_RATE / gap) + 1)))


def _bird(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    period = 0.13 + 0.03 * rng.random()
    ramp = _since(n, period) / np.float32(period)
    tone = _sine(_phase(np.float32(2500 * pitch) * (1 + np.float32(0.5) * ramp), n))
    gate = np.clip(np.float32(1.2) - np.float32(2) * np.abs(ramp - np.float32(0.4)), 0, 1)
    chirps: Wave = tone * gate
    return chirps


def _engine(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    pulse = np.exp(10 * (np.cos(np.float32(2 * np.pi) * _phase(80 * pitch, n)) - 1))
    throb = 1 + np.float32(0.6) * _sine(_phase(9 * pitch, n))
    hum: Wave = (pulse - pulse.mean()) * throb
    return hum + np.float32(0.02) * _noise(n, rng)


def _alarm(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    period = 0.23 + 0.04 * rng.random()
    return np.tanh(3 * _sine(_phase(1250 * pitch, n))) * (_since(n, period) < period / 2)


def _hammer(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    gap = 0.2 + 0.05 * rng.random()
    knock = _ping(190 * pitch, 0.03)
    knock[:120] += np.float32(0.4) * _noise(120, rng)
    return _place(n, ((gap * k, knock) for k in range(int(n / SAMPLE_RATE / gap) + 1)))


def _whistle(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    vibrato = _sine(_phase(5 + rng.random(), n))
    tone = _sine(_phase(np.float32(1500 * pitch) * (1 + np.float32(0.02) * vibrato), n))
    return tone + np.float32(0.03) * _noise(n, rng)


def _rain(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    return _band_noise(n, 2600 * pitch, 0.6, rng)


def _wind(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    gusts = np.float32(0.55) + np.float32(0.45) * _sine(_phase(1.3, n) + np.float32(rng.random()))
    return _band_noise(n, 420 * pitch, 0.3, rng) * gusts


def _walker(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    gap = 0.38 + 0.08 * rng.random()
    since = _since(n, gap)
    rise, fall = since / np.float32(0.012), np.exp((np.float32(0.012) - since) / np.float32(0.05))
    steps: Wave = _band_noise(n, 1000 * pitch, 0.35, rng) * np.minimum(rise, fall)
    return steps


def _clock(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    gap = 0.24 + 0.03 * rng.random()
    clicks = (_ping(3300 * pitch, 0.006), _ping(2500 * pitch, 0.006))
    return _place(n, ((gap * k, clicks[k % 2]) for k in range(int(n / SAMPLE_RATE / gap) + 1)))


def _glass(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    count = int(16 * n / SAMPLE_RATE)
    times = np.sort(rng.random(count)) * n / SAMPLE_RATE
    times[0] = 0
    ratios = 1 + rng.random(count)
    pings = (_ping(2100 * pitch * float(ratio), 0.05) for ratio in ratios)
    return _place(n, zip(times.tolist(), pings, strict=True))


def _tap(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    length = int(0.09 * SAMPLE_RATE)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    drop = _sine(_phase(np.float32(480 * pitch) * (1 + np.float32(1.4) * ramp), length))
    drop *= np.sin(np.float32(np.pi) * np.sqrt(ramp))
    gaps = 0.2 + 0.16 * rng.random(12)
    return _place(n, ((float(time), drop) for time in np.cumsum(gaps) - gaps[0]))


def _bee(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    wobble = _sine(_phase(6 + 2 * rng.random(), n))
    saw = 2 * _phase(np.float32(210 * pitch) * (1 + np.float32(0.06) * wobble), n) - 1
    return saw * (1 + np.float32(0.25) * wobble)


def _phone(n: int, pitch: float, rng: np.random.Generator) -> Wave:
    since = _since(n, 0.6)
    upper = _since(n, 0.05) < 0.025
    frequency = np.where(upper, np.float32(1150 * pitch), np.float32(850 * pitch))
    tone = _sine(_phase(frequency.astype(np.float32), n)) * (since < 0.42)
    return tone + np.float32(0.005) * _noise(n, rng)


SOUNDS: dict[str, Synthesizer] = {
    sound.__name__.removeprefix("_"): sound
    for sound in (
        *(_siren, _bell, _dog, _bird, _engine, _alarm, _hammer, _whistle),
        *(_rain, _wind, _walker, _clock, _glass, _tap, _bee, _phone),
    )
}
"""Sound name to ``(samples, pitch factor, generator) -> [samples] float32`` of any level."""


def synthesize(sound: str, samples: int, pitch: float, rng: np.random.Generator) -> Wave:
    """One sound, ``[samples]`` float32 with a peak of 1 and 10 ms fades.

    Args:
        sound: a key of :data:`SOUNDS`.
        samples: its length at 16 kHz, at least 1,600 (0.1 s).
        pitch: factor on its frequencies.
        rng: phases, rhythm and noise.
    """
    wave = SOUNDS[sound](samples, pitch, rng).astype(np.float32, copy=False)
    fade = np.linspace(0, 1, _FADE, dtype=np.float32)
    wave[:_FADE] *= fade
    wave[-_FADE:] *= fade[::-1]
    wave /= np.abs(wave).max()
    return wave
