"""A tiny model, a folder of sounds with awkward names, and an index of them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tiny_bundle import make_bundle

from atr_moco_plugin.retriever import AudioTextRetriever
from atr_moco_plugin.search.bank import make_bank
from atr_moco_plugin.search.build import build, index_info
from atr_moco_plugin.search.local import create_local, open_local
from atr_moco_plugin.search.sources import list_sounds
from atr_moco_plugin.serving.searcher import Searcher

RATE = 16_000
WORDS = ("barks", "falls", "wails", "far", "away")
AWKWARD = ("<img src=x onerror=alert(1)>.wav", "two\nlines.wav", "🐕 dog.wav", "per%20cent?.wav")
NOT_UTF8 = os.fsdecode(b"caf\xe9.wav")


class World(NamedTuple):
    """Where everything is."""

    model: Path
    sounds: Path
    index: Path

    @property
    def searcher(self) -> Searcher:
        retriever = AudioTextRetriever.from_pretrained(self.model)
        return Searcher(lambda: open_local(self.index), retriever)


def make_world(root: Path, seconds: float = 1.0) -> World:
    """Recordings of half a second, and one of 4.2 s in windows of ``seconds``."""
    world = World(make_bundle(root / "model", seconds=seconds), root / "sounds", root / "index")
    world.sounds.mkdir()
    write_sound(world.sounds / "long.wav", 99, 4.2)
    write_sound(world.sounds / "stereo.flac", 5, 0.5, channels=2)
    for number, name in enumerate((*AWKWARD, NOT_UTF8)):
        write_sound(world.sounds / name, number)
    packed = write_sound(root / "packed.wav", 50)
    with tarfile.open(world.sounds / "shard.tar", "w") as tar:
        tar.add(packed, "inside.wav")
    update(world)
    return world


def update(world: World) -> None:
    """Index what is new."""
    retriever = AudioTextRetriever.from_pretrained(world.model)
    with create_local(world.index, index_info(retriever)) as store:
        build(store, retriever, list_sounds(world.sounds))


def give_bank(world: World) -> None:
    """Keep a bank of some sentences in the index."""
    retriever = AudioTextRetriever.from_pretrained(world.model)
    lines = [f"{x} {y} {n}" for n, x in enumerate(("a dog", "rain", "a siren")) for y in WORDS]
    with open_local(world.index, write=True) as store:
        store.set_bank(make_bank(lines, lambda some: retriever.embed_text(some).numpy()))


def write_sound(path: Path, number: int, seconds: float = 0.5, *, channels: int = 1) -> Path:
    """A tone that rises, in noise; another number is another sound."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (150 + 60 * (number % 50) + 200 * time) * time)
    wave = np.stack([wave] * channels, axis=1) + rng.normal(0, 0.02, (len(time), channels))
    with path.open("wb") as file:  # libsndfile cannot write to every name
        soundfile.write(file, wave, RATE, format=path.suffix[1:].upper(), subtype="PCM_16")
    return path
