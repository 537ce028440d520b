"""Scenes of real recordings: sequences and mixtures of labelled sounds, with captions from a
grammar.

The recordings are those of any labelled folder: ESC-50's layout, or a folder for each class. Like
in the toy data set, everything follows from a seed, and a share of the clips is drawn from a small
pool of popular scenes, so that clips share scenes and exact caption texts but not recordings.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from atr_moco_plugin.config import in_range
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.opening.caption_folder import required_root
from atr_moco_plugin.data.sets.scene_captions import RecordedScene, SceneEvent, describe_scene
from atr_moco_plugin.data.sets.scene_recordings import RecordingsConfig, find_recordings
from atr_moco_plugin.data.sets.scene_rendering import SceneRenderer, SceneSource
from atr_moco_plugin.data.sets.toy import made_clips_problems
from atr_moco_plugin.data.sets.toy_captions import Arrangement, pick
from atr_moco_plugin.data.summary import Counts
from atr_moco_plugin.errors import InputError, listed
from atr_moco_plugin.ids import stable_digest
from atr_moco_plugin.sample_rate import RATES

SEEN = "seen"
"""The split of other scenes of the recordings of ``train``."""


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(RecordingsConfig):
    """How to make scenes of recordings.

    Attributes:
        name: the data set's, part of every clip id; give two different data sets two names.
        seed: which scenes there are, their captions and how they sound; a clip depends on it, the
            clip's key and the recordings of its split.
        num_train: clips of the split ``train``.
        num_valid: clips of the split ``valid``.
        num_test: clips of the split ``test``.
        num_seen: clips of the split ``seen``: other scenes of the recordings of ``train``.
        seconds: duration of every clip.
        sample_rate: in Hz, at which clips are rendered; set it to the model's where that is higher.
        single_share: share of the scenes that have one sound.
        triple_share: share of the scenes that have three sounds; the rest have two.
        popular_share: share of clips whose scene comes from the popular pool.
        popular_scenes: size of that pool.
    """

    name: str = "scenes"
    seed: int = 0
    num_train: int = 2000
    num_valid: int = 200
    num_test: int = 200
    num_seen: int = 0
    seconds: float = 5.0
    sample_rate: int = 16_000
    single_share: float = 0.15
    triple_share: float = 0.2
    popular_share: float = 0.18
    popular_scenes: int = 24

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from in_range(self, "test_fraction", "valid_fraction", least=0, below=1)
        yield from made_clips_problems(self, "num_train", "num_valid", "num_test")
        yield from in_range(self, "num_seen", least=0)
        yield from in_range(self, "triple_share", least=0, most=1)
        yield from in_range(self, "seconds", least=2, most=60)
        yield from in_range(self, "sample_rate", least=RATES[0], most=RATES[1])
        if self.single_share + self.triple_share > 1:
            yield (
                f"`single_share` and `triple_share` are {self.single_share} and "
                f"{self.triple_share}, expected at most 1 together."
            )


def open_scenes(config: ScenesConfig) -> AudioTextDataset:
    """Make scenes of recordings, with the splits ``train``, ``valid`` and ``test``.

    Scenes of a split are made of recordings of that split alone; those of a split ``seen``, there
    with ``num_seen``, of recordings of ``train``. It tells what is learned of sounds that were
    heard in training, ``test`` what of it holds for other recordings. A clip has five captions.
    Clips are rendered each time they are read, unless the reader has a ``cache_dir``.

    Raises:
        MissingFileError: if the folder has no recordings.
        InputError: if a split has recordings of fewer than two classes, and as
            :func:`~atr_moco_plugin.data.sets.scene_recordings.find_recordings`.
    """
    root = required_root(config.root, "A data set of scenes")
    name = config.name if config.seed == 0 else f"{config.name}-{config.seed}"
    found = find_recordings(root, name, config)
    phrases = {str(clip.label): clip.captions for clips in found.splits.values() for clip in clips}
    if len(phrases) < 2:
        raise InputError(
            f"{root}: has recordings of one class, {next(iter(phrases))!r}, and scenes need two "
            "or more; add a folder of another sound"
        )
    sizes = {
        "train": config.num_train,
        "valid": config.num_valid,
        "test": config.num_test,
        SEEN: config.num_seen,
    }
    splits: dict[str, list[Clip]] = {}
    for split, size in sizes.items():
        if size:
            pool = _pool(found.splits.get("train" if split == SEEN else split, ()))
            _check_pool(root, split, pool, phrases)
            maker = _Maker(config, pool, phrases)
            splits[split] = [maker.clip(f"{split}-{index:05d}") for index in range(size)]
    renderer = SceneRenderer(config.seed, config.seconds, config.sample_rate, config.decoder)
    return AudioTextDataset(
        name,
        splits,
        read=renderer,
        read_rate=config.sample_rate,
        read_key=renderer.key,
        made_of=renderer.made_of,
        counts={
            split: replace(found.counts.get(split, Counts()), seconds=config.seconds * sizes[split])
            for split in splits
        },
        cache=config.cache,
    )


def draw_scene(
    rng: Random, labels: Sequence[str], single_share: float, triple_share: float
) -> RecordedScene:
    """Draw one to three different classes, their arrangement and how far away each is.

    Args:
        rng: the generator.
        labels: two classes or more; with two, no scene has three sounds.
        single_share: probability of one sound.
        triple_share: probability of three.
    """
    value = rng.random()
    number = 1 if value < single_share else 3 if value < single_share + triple_share else 2
    events: list[SceneEvent] = []
    for _ in range(min(number, len(labels))):
        label = pick(rng, [label for label in labels if all(label != e.label for e in events)])
        events.append(SceneEvent(label, far=rng.random() < 0.5))
    arrangement: Arrangement = "then" if rng.random() < 0.5 else "while"
    return RecordedScene("alone" if number == 1 else arrangement, tuple(events))


@dataclass(frozen=True)
class _Maker:
    """Makes clips of a split: `pool` is class to its recordings."""

    config: ScenesConfig
    pool: Mapping[str, Sequence[Clip]]
    phrases: Mapping[str, Sequence[str]]

    def clip(self, key: str) -> Clip:
        rng = Random(stable_digest("scene", self.config.seed, key))
        scene = self._scene(rng)
        captions = describe_scene(scene, self.phrases, rng)
        heard = [pick(rng, self.pool[event.label]) for event in scene.events]
        source = SceneSource(scene, tuple(x.source for x in heard), tuple(x.key for x in heard))
        return Clip(key=key, captions=captions, source=source, seconds=self.config.seconds)

    def _scene(self, rng: Random) -> RecordedScene:
        if rng.random() < self.config.popular_share:
            rank = int(rng.random() * self.config.popular_scenes)
            rng = Random(stable_digest("scene popular", self.config.seed, rank))
        return draw_scene(
            rng, sorted(self.pool), self.config.single_share, self.config.triple_share
        )


def _pool(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    pool: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        pool[str(clip.label)].append(clip)
    return pool


def _check_pool(
    root: object, split: str, pool: Mapping[str, object], phrases: Mapping[str, object]
) -> None:
    """Refuse a split with fewer than two classes, and warn of classes that it lacks."""
    if len(pool) < 2:
        has = f"recordings of {next(iter(pool))!r} alone" if pool else "no recording"
        raise InputError(
            f"{root}: the split {split!r} has {has}, and scenes need two classes; add recordings, "
            f"so that each class has three or more, or set num_{split} to 0"
        )
    absent = sorted(phrases.keys() - pool.keys())
    if absent:
        warnings.warn(
            f"{root}: {len(absent):,} of {len(phrases):,} classes have no recording for the split "
            f"{split!r}, whose scenes lack them: {listed(absent)}",
            stacklevel=4,
        )
