"""The embedded data set: sound scenes synthesised from a seed, with captions from a grammar.

It needs no files and no network, and goes through the same data set class, loader and batches as
real data. Like in real data, descriptions are many-to-one: a share of the clips is drawn from a
small pool of popular scenes, so that clips share scenes and exact caption texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from atr_moco_plugin.config import Config, in_range
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets.toy_captions import Arrangement, Event, Scene, describe, pick
from atr_moco_plugin.data.sets.toy_sounds import SAMPLE_RATE, SOUNDS, synthesize
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.ids import stable_digest

CLIP_SECONDS = 4.0
"""Duration of every clip."""

PITCH_FACTORS = (0.6, 1.0, 1.7)
"""Factor on a sound's frequencies for low, middle and high."""

LOUDNESS_DB = (-14.0, 0.0)
"""Peak level of a quiet and a loud event, relative to a peak of 0.45."""

_PEAK = 0.45


def made_clips_problems(config: object, *numbers: str) -> Iterator[str]:
    """One sentence for each option of clips made of drawn scenes that cannot be used.

    Args:
        config: the options, with ``single_share``, ``popular_share`` and ``popular_scenes``.
        numbers: the options that say how many clips the splits have, of which one is needed.
    """
    yield from in_range(config, *numbers, least=0)
    yield from in_range(config, "single_share", "popular_share", least=0, most=1)
    share, pool = "popular_share", "popular_scenes"
    yield from in_range(config, pool, least=int(getattr(config, share) > 0))
    if not any(getattr(config, name) for name in numbers):
        first, last = ", ".join(f"`{name}`" for name in numbers[:-1]), numbers[-1]
        yield f"{first} and `{last}` are 0, expected clips in one of them."


@dataclass(frozen=True)
class ToyConfig(Config):
    """How to make the toy data set.

    Attributes:
        seed: everything follows from it; a clip depends on it and on the clip's key alone.
        num_train: clips of the split ``train``.
        num_valid: clips of the split ``valid``.
        num_test: clips of the split ``test``.
        popular_share: share of clips whose scene comes from the popular pool.
        popular_scenes: size of that pool.
        single_share: share of the other scenes that have one event instead of two.
        cache: keep rendered audio in memory (16-bit: 128 kB a clip).
    """

    seed: int = 0
    num_train: int = 1500
    num_valid: int = 200
    num_test: int = 200
    popular_share: float = 0.18
    popular_scenes: int = 24
    single_share: float = 0.08
    cache: bool = False

    def problems(self) -> Iterator[str]:
        yield from made_clips_problems(self, "num_train", "num_valid", "num_test")


@dataclass(frozen=True)
class ToyRenderer:
    """Renders clips of one data seed; called with a clip, as the data set's ``read``."""

    seed: int

    def __call__(self, clip: Clip) -> NDArray[np.float32]:
        """The clip's waveform, ``[64000]`` float32, on the grid of 16-bit audio."""
        return render(clip.source, stable_digest("toy audio", self.seed, clip.key))


def open_toy(config: ToyConfig | None = None) -> AudioTextDataset:
    """Make the data set ``toy`` with the splits ``train``, ``valid`` and ``test``.

    Raises:
        InputError: if the configuration gives no clip.
    """
    config = ToyConfig() if config is None else config
    sizes = {"train": config.num_train, "valid": config.num_valid, "test": config.num_test}
    splits = {
        split: [_make_clip(config, f"{split}-{index:05d}") for index in range(size)]
        for split, size in sizes.items()
    }
    return AudioTextDataset(
        "toy" if config.seed == 0 else f"toy-{config.seed}",
        splits,
        read=ToyRenderer(config.seed),
        read_rate=SAMPLE_RATE,
        counts={split: Counts(seconds=CLIP_SECONDS * size) for split, size in sizes.items()},
        cache=config.cache,
    )


def _make_clip(config: ToyConfig, key: str) -> Clip:
    rng = Random(stable_digest("toy scene", config.seed, key))
    if rng.random() < config.popular_share:
        rank = int(rng.random() * config.popular_scenes)
        scene = draw_scene(
            Random(stable_digest("toy popular", config.seed, rank)), config.single_share
        )
    else:
        scene = draw_scene(rng, config.single_share)
    return Clip(key=key, captions=describe(scene, rng), source=scene, seconds=CLIP_SECONDS)


def draw_scene(rng: Random, single_share: float) -> Scene:
    """Draw one or two different sounds, their attributes and their arrangement, all uniformly."""
    names = tuple(SOUNDS)
    first = pick(rng, names)
    if rng.random() < single_share:
        return Scene("alone", (_draw_event(first, rng),))
    second = pick(rng, tuple(name for name in names if name != first))
    arrangement: Arrangement = "then" if rng.random() < 0.5 else "while"
    return Scene(arrangement, (_draw_event(first, rng), _draw_event(second, rng)))


def _draw_event(sound: str, rng: Random) -> Event:
    return Event(sound, pitch=int(rng.random() * 3), loudness=int(rng.random() * 2))


def render(scene: Scene, seed: int) -> NDArray[np.float32]:
    """Synthesise a scene over background noise.

    Args:
        scene: what is heard.
        seed: times, durations, small deviations of pitch and level, and noise.

    Returns:
        ``[64000]`` float32 in ``[-1, 1]``, 16 kHz, rounded to multiples of 2**-15 so that a 16-bit
        file holds it exactly.
    """
    rng = np.random.default_rng(seed)
    samples = int(CLIP_SECONDS * SAMPLE_RATE)
    noise_level = 10 ** rng.uniform(-3.3, -2.5)
    out = (rng.random(samples, dtype=np.float32) - np.float32(0.5)) * np.float32(noise_level)
    for event, (start, length) in zip(scene.events, _times(scene.arrangement, rng), strict=True):
        pitch = PITCH_FACTORS[event.pitch] * 2 ** rng.uniform(-0.05, 0.05)
        level = _PEAK * 10 ** ((LOUDNESS_DB[event.loudness] + rng.uniform(-1.5, 1.5)) / 20)
        wave = synthesize(event.sound, length, pitch, rng)
        out[start : start + length] += np.float32(level) * wave
    steps: NDArray[np.float32] = np.rint(np.clip(out * np.float32(32768), -32768, 32767))
    return steps / np.float32(32768)


def _times(arrangement: Arrangement, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(start, length) of each event in samples: 1.0 to 1.6 s in a sequence, else 1.4 to 2 s."""
    if arrangement == "then":
        first, gap, second = rng.uniform(1.0, 1.6), rng.uniform(0.1, 0.3), rng.uniform(1.0, 1.6)
        start = rng.uniform(0.05, CLIP_SECONDS - 0.05 - first - gap - second)
        spans = [(start, first), (start + first + gap, second)]
    else:
        start = rng.uniform(0.05, 1.6)
        count = 2 if arrangement == "while" else 1
        spans = [(start + rng.uniform(0, 0.25), rng.uniform(1.4, 2.0)) for _ in range(count)]
    return [(int(begin * SAMPLE_RATE), int(length * SAMPLE_RATE)) for begin, length in spans]
