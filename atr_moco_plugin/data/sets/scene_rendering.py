"""Recorded sounds to the waveform of a scene: excerpts, levels, fades, times and background."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atr_moco_plugin.data.audio.decode import Decoder
from atr_moco_plugin.data.audio.read import read_audio
from atr_moco_plugin.data.audio.source import file_marks, stat_file
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.sets.scene_captions import RecordedScene
from atr_moco_plugin.data.sets.scene_parts import loud_part
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import stable_digest

Wave = NDArray[np.float32]

SILENCE = 1e-4
"""Peak below which a recording is silent: -80 dB, three steps of 16-bit audio."""

NEAR_DB = -23.0
"""Root mean square of a near sound where it is loud, relative to full scale."""

FAR_DB = -10.0
"""Level of a far sound, relative to a near one."""

_LONGEST = 60.0
"""Seconds of a recording that are decoded, from a drawn place on, where it is loud."""

_PEAK = 0.5
_FRAME = 0.02  # seconds
_QUIET = 0.01  # -40 dB: frames below the loudest frame by more are no part of the sound
_LOUD = 0.1  # -20 dB: frames that decide about the level


@dataclass(frozen=True, slots=True)
class SceneSource:
    """A scene and the recordings that it is made of.

    Attributes:
        scene: what is heard.
        paths: the file of each event, in the same order.
        names: what each file is called wherever the recordings lie.
    """

    scene: RecordedScene
    paths: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class SceneRenderer:
    """Renders clips of one seed; called with a clip, as the data set's ``read``.

    Attributes:
        seed: times, excerpts, levels, fades and background follow from it and the clip's key.
        seconds: how long a clip is.
        sample_rate: of the result in Hz.
        decoder: what decodes the recordings.
    """

    seed: int
    seconds: float
    sample_rate: int
    decoder: Decoder = "soundfile"

    def __call__(self, clip: Clip) -> Wave:
        """The clip's waveform, ``[samples]`` float32, on the grid of 16-bit audio.

        Raises:
            FileNotFoundError, InputError: if a recording is missing, unreadable, too short or
                silent.
        """
        source: SceneSource = clip.source
        waves = [self._recording(path, clip.key, at) for at, path in enumerate(source.paths)]
        rng = np.random.default_rng(stable_digest("scene audio", self.seed, clip.key))
        samples = round(self.seconds * self.sample_rate)
        return render_scene(source.scene, waves, samples, self.sample_rate, rng)

    def key(self, clip: Clip) -> str:
        """What decides about the clip's waveform, for the cache on disk: another seed, another
        recording, or a file that was changed since, is another key.

        Raises:
            FileNotFoundError: if a recording is missing.
        """
        source: SceneSource = clip.source
        files: list[object] = []
        for path in source.paths:
            state = stat_file(path, path)
            files.append((os.path.abspath(path), *file_marks(state)))
        return repr(["scene 2", clip.key, source.scene, files, *vars(self).values()])

    def made_of(self, clip: Clip) -> str:
        """What is heard in a clip of this seed and decoder, equal wherever the recordings lie."""
        source: SceneSource = clip.source
        return repr([source.scene, source.names, self.seconds, self.sample_rate])

    def _recording(self, path: str, key: str, at: int) -> Wave:
        generator = torch.Generator().manual_seed(stable_digest("scene part", self.seed, key, at))
        samples = round(_LONGEST * self.sample_rate)
        part = loud_part(path, _LONGEST, generator, self.decoder)
        wave = read_audio(part, self.sample_rate, samples, generator, decoder=self.decoder)
        if np.abs(wave).max() < SILENCE:
            raise InputError(f"{path}: is silent; put a sound in its place or leave it out")
        return wave


def render_scene(
    scene: RecordedScene,
    recordings: Sequence[Wave],
    samples: int,
    sample_rate: int,
    rng: np.random.Generator,
) -> Wave:
    """Put excerpts of recordings together over background noise.

    Each excerpt is a loud part of its recording, without silence around it, and shorter than asked
    where the sound is. Near sounds have one level, give or take 2 dB, far ones are quieter by
    :data:`FAR_DB`. In a sequence none begins before the one before it has ended; at once, the
    shorter ones lie within the longest. If their sum is beyond full scale, all of it gets quieter.

    Args:
        scene: what is heard.
        recordings: ``[n]`` float32 for each event, none silent.
        samples: of the result; at least two seconds.
        sample_rate: of the recordings and of the result, in Hz.
        rng: draws excerpts, levels, fades, times and noise.

    Returns:
        ``[samples]`` float32 in ``[-1, 1]``, rounded to multiples of 2**-15 so that a 16-bit file
        holds it exactly.
    """
    share = (0.75, 1.0) if scene.arrangement == "then" else (0.5, 0.85)
    room = 0.9 * samples / (len(recordings) if scene.arrangement == "then" else 1)
    parts = []
    for event, wave in zip(scene.events, recordings, strict=True):
        part = excerpt(wave, round(room * rng.uniform(*share)), sample_rate, rng)
        part = _levelled(part, event.far, sample_rate, rng)
        parts.append(_faded(part, sample_rate, rng))
    out = _background(samples, rng)
    for part, start in zip(parts, _starts(scene, parts, samples, rng), strict=True):
        out[start : start + len(part)] += part
    out /= max(1.0, float(np.abs(out).max()) / 0.99)
    steps: Wave = np.rint(out * np.float32(32768))
    return steps / np.float32(32768)


def excerpt(wave: Wave, samples: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """A drawn part of a sound: at most ``samples`` of it, without silence before and after.

    Among the parts with at least half the energy of the loudest one, each is equally likely.

    Args:
        wave: ``[n]`` float32, not silent.
        samples: the most samples to return.
        sample_rate: in Hz.
        rng: draws the part.
    """
    wave = _trimmed(wave, sample_rate)
    if len(wave) > samples:
        hop = max(1, round(_FRAME * sample_rate))
        total = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
        starts = np.arange(0, len(wave) - samples + 1, hop)
        energy = total[starts + samples] - total[starts]
        good = starts[energy >= energy.max() / 2]
        start = int(good[int(rng.random() * len(good))])
        wave = _trimmed(wave[start : start + samples], sample_rate)
    return wave


def _frame_levels(wave: Wave, sample_rate: int) -> tuple[NDArray[np.float64], int]:
    """Root mean square of frames of 20 ms, and their length in samples; the last one is padded."""
    size = max(1, round(_FRAME * sample_rate))
    padded = np.pad(wave, (0, -len(wave) % size)).reshape(-1, size)
    return np.sqrt(np.square(padded, dtype=np.float64).mean(axis=1)), size


def _trimmed(wave: Wave, sample_rate: int) -> Wave:
    """Without what is quiet before and after the sound; a frame is kept on either side."""
    levels, size = _frame_levels(wave, sample_rate)
    heard = np.flatnonzero(levels > _QUIET * levels.max())
    return wave[max(0, int(heard[0]) - 1) * size : (int(heard[-1]) + 2) * size]


def _levelled(wave: Wave, far: bool, sample_rate: int, rng: np.random.Generator) -> Wave:
    levels, _ = _frame_levels(wave, sample_rate)
    level = float(np.sqrt(np.square(levels[levels > _LOUD * levels.max()]).mean()))
    gain = min(10 ** (NEAR_DB / 20) / level, _PEAK / float(np.abs(wave).max()))
    gain *= 10 ** (((FAR_DB if far else 0.0) + rng.uniform(-2, 2)) / 20)
    return wave * np.float32(gain)


def _faded(wave: Wave, sample_rate: int, rng: np.random.Generator) -> Wave:
    """Fades of 5 to 40 ms in and 20 to 200 ms out, at most a quarter of the sound each."""
    wave = wave.copy()
    for seconds, end in ((rng.uniform(0.005, 0.04), False), (rng.uniform(0.02, 0.2), True)):
        length = min(round(seconds * sample_rate), len(wave) // 4)
        ramp = np.linspace(0, 1, length, dtype=np.float32)
        part = wave[::-1][:length] if end else wave[:length]
        part *= ramp
    return wave


def _starts(
    scene: RecordedScene, parts: Sequence[Wave], samples: int, rng: np.random.Generator
) -> list[int]:
    lengths = [len(part) for part in parts]
    if scene.arrangement == "then":
        # What is left of the clip is divided at random: before, between and after.
        pauses = np.sort(rng.random(len(parts))) * (samples - sum(lengths))
        return [sum(lengths[:at]) + int(pause) for at, pause in enumerate(pauses)]
    longest = max(range(len(parts)), key=lengths.__getitem__)
    first = int(rng.random() * (samples - lengths[longest]))
    return [first + int(rng.random() * (lengths[longest] - length)) for length in lengths]


def _background(samples: int, rng: np.random.Generator) -> Wave:
    """Noise of -66 to -50 dB whose spectrum falls by a drawn slope, from white to pink and on."""
    spectrum = np.fft.rfft(rng.random(samples, dtype=np.float32) - np.float32(0.5))
    spectrum /= np.maximum(np.arange(len(spectrum)), 8) ** rng.uniform(0, 0.8)
    noise = np.fft.irfft(spectrum, samples).astype(np.float32)
    level = 10 ** rng.uniform(-3.3, -2.5)
    noise *= np.float32(level / np.sqrt(np.square(noise, dtype=np.float64).mean()))
    return noise
