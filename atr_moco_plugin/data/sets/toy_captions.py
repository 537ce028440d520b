"""Scenes of one or two sounds, and a grammar that words them in captions.

The words and the sentence patterns are in ``toy_words.json`` beside this file. In a pattern,
``{a}`` and ``{b}`` stand for a sound as in "a loud dog barks", ``{a_ing}`` and ``{b_ing}`` as in
"a loud dog barking".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

Arrangement = Literal["alone", "then", "while"]
T = TypeVar("T")

_WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("toy_words.json").read_text("utf-8"))

CLAUSE_PATTERNS: dict[str, tuple[str, ...]] = {
    arrangement: tuple(pattern for pattern in patterns if "_ing" not in pattern)
    for arrangement, patterns in _WORDS["patterns"].items()
}
"""Arrangement to the sentence patterns that take whole clauses alone, such as "a dog barks"."""

# What each caption of a clip says of each event: p its pitch, l its loudness.
_MENTIONS = {
    1: ("pl", "pl", "pl", "p", "l"),
    2: ("pl pl", "p p", "l l", "pl l", "p pl"),
}


@dataclass(frozen=True)
class Event:
    """One sound of a scene.

    Attributes:
        sound: a key of :data:`atr_moco_plugin.data.sets.toy_sounds.SOUNDS`.
        pitch: 0 low, 1 middle, 2 high.
        loudness: 0 quiet, 1 loud.
    """

    sound: str
    pitch: int
    loudness: int


@dataclass(frozen=True)
class Scene:
    """What is heard in a clip.

    Attributes:
        arrangement: ``"alone"``: one event; ``"then"``: two in order; ``"while"``: two at once.
        events: one or two events.
    """

    arrangement: Arrangement
    events: tuple[Event, ...]


def pick(rng: Random, options: Sequence[T], first: float | None = None) -> T:
    """Choose one of ``options`` from a single ``rng.random()``, whose sequence Python guarantees.

    Args:
        rng: the generator.
        options: at least one.
        first: probability of the first option, the others being equally likely; ``None``: uniform.
    """
    value = rng.random()
    if first is not None and len(options) > 1:
        if value < first:
            return options[0]
        options, value = options[1:], (value - first) / (1 - first)
    return options[int(value * len(options))]


def describe(scene: Scene, rng: Random) -> tuple[str, ...]:
    """Five true captions of ``scene``, worded and detailed differently.

    Each names all of the scene's events, how they are arranged, and the pitch or the loudness of
    each event; the first gives both of every event. The commonest wording of every part is chosen
    most of the time, so that two clips with one scene often share a caption's exact text.
    """
    return tuple(_word(scene, mentions.split(), rng) for mentions in _MENTIONS[len(scene.events)])


def _word(scene: Scene, mentions: Sequence[str], rng: Random) -> str:
    said = list(zip(scene.events, mentions, strict=True))
    if scene.arrangement == "while" and rng.random() < 0.5:
        said.reverse()
    pattern: str = pick(rng, _WORDS["patterns"][scene.arrangement], first=0.4)
    slots: dict[str, str] = {}
    for name, (event, mention) in zip("ab", said, strict=False):
        words = _WORDS["sounds"][event.sound]
        phrase: list[str] = []
        if "l" in mention:
            phrase.append(pick(rng, _WORDS["loudness"][event.loudness], first=0.75))
        if "p" in mention:
            phrase.append(pick(rng, _WORDS["pitch"][event.pitch], first=0.75))
        phrase.append(words["noun"])
        verb = pick(rng, range(len(words["finite"])), first=0.75)
        article = "an" if phrase[0][0] in "aeiou" else "a"
        slots[name] = " ".join([article, *phrase, words["finite"][verb]])
        slots[f"{name}_ing"] = " ".join([article, *phrase, words["gerund"][verb]])
    return pattern.format(**slots)
