"""Scenes of one or two sounds, and a grammar that words them in captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, TypeVar

Relation = Literal["alone", "then", "while"]
T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """One sound of a scene.

    Attributes:
        sound: a key of :data:`atr_moco_plugin.data.sets.toy_sounds.SOUNDS`.
        pitch: 0 low, 1 middle, 2 high; ``None`` in a description that does not say.
        loudness: 0 quiet, 1 loud; ``None`` in a description that does not say.
    """

    sound: str
    pitch: int | None
    loudness: int | None


@dataclass(frozen=True)
class Scene:
    """What is heard in a clip, or what a caption says of it.

    Attributes:
        relation: ``"alone"``: one event; ``"then"``: two in order; ``"while"``: two at once.
        events: one or two events.
    """

    relation: Relation
    events: tuple[Event, ...]

    def fits(self, scene: Scene) -> bool:
        """Whether this description is true of ``scene``; the order counts only in ``"then"``."""
        if self.relation != scene.relation:
            return False
        orders = [scene.events]
        if self.relation == "while":
            orders.append(scene.events[::-1])
        return any(
            all(_event_fits(said, heard) for said, heard in zip(self.events, order, strict=True))
            for order in orders
        )


def _event_fits(said: Event, heard: Event) -> bool:
    return (
        said.sound == heard.sound
        and said.pitch in (None, heard.pitch)
        and said.loudness in (None, heard.loudness)
    )


class Wording(NamedTuple):
    """A caption's text and what it says of the scene."""

    text: str
    says: Scene


class _Words(NamedTuple):
    noun: str
    finite: tuple[str, ...]
    gerund: tuple[str, ...]


_LEXICON = {
    "siren": _Words("siren", ("wails", "howls"), ("wailing", "howling")),
    "bell": _Words("bell", ("tolls", "chimes"), ("tolling", "chiming")),
    "dog": _Words("dog", ("barks", "woofs"), ("barking", "woofing")),
    "bird": _Words("bird", ("chirps", "sings"), ("chirping", "singing")),
    "engine": _Words("engine", ("runs", "rumbles"), ("running", "rumbling")),
    "alarm": _Words("alarm", ("beeps",), ("beeping",)),
    "hammer": _Words("hammer", ("knocks", "pounds"), ("knocking", "pounding")),
    "whistle": _Words("whistle", ("blows", "sounds"), ("blowing", "sounding")),
    "rain": _Words("rain shower", ("patters", "falls"), ("pattering", "falling")),
    "wind": _Words("wind", ("blows", "gusts"), ("blowing", "gusting")),
    "walker": _Words("walker", ("steps along", "walks"), ("stepping along", "walking")),
    "clock": _Words("clock", ("ticks",), ("ticking",)),
    "glass": _Words("glass pane", ("shatters", "breaks"), ("shattering", "breaking")),
    "tap": _Words("tap", ("drips", "leaks"), ("dripping", "leaking")),
    "bee": _Words("bee", ("buzzes", "hums"), ("buzzing", "humming")),
    "phone": _Words("phone", ("rings",), ("ringing",)),
}
_PITCH = (("low", "deep"), ("mid-pitched",), ("high", "shrill"))
_LOUDNESS = (("quiet", "faint"), ("loud", "strong"))

# {a}, {b}: "a loud dog barks"; {a_ing}, {b_ing}: "a loud dog barking".
_TEMPLATES: dict[Relation, tuple[str, ...]] = {
    "alone": ("{a} alone", "only {a_ing}", "{a} on its own", "nothing but {a_ing}"),
    "then": (
        "{a} then {b}",
        "{a_ing} followed by {b_ing}",
        "{b} after {a}",
        "{a} before {b}",
        "first {a} and next {b}",
    ),
    "while": (
        "{a} while {b}",
        "{a_ing} together with {b_ing}",
        "{a} as {b}",
        "{a} and {b} at the same time",
        "{a_ing} over {b_ing}",
    ),
}
# For each caption of a clip, whether it gives (pitch, loudness) of the first and the second event.
_MENTIONS = {
    1: (((1, 1),), ((1, 1),), ((1, 1),), ((1, 0),), ((0, 1),)),
    2: (
        ((1, 1), (1, 1)),
        ((1, 0), (1, 0)),
        ((0, 1), (0, 1)),
        ((1, 1), (0, 1)),
        ((1, 0), (1, 1)),
    ),
}

NUM_CAPTIONS = 5
"""Captions of a clip."""


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


def describe(scene: Scene, rng: Random) -> tuple[Wording, ...]:
    """Five true captions of ``scene``, worded and detailed differently.

    Each names all of the scene's events, their relation, and the pitch or the loudness of each
    event; the first gives both of every event. The commonest wording of every part is chosen most
    of the time, so that two clips with one scene often share a caption's exact text.
    """
    return tuple(_word(scene, mention, rng) for mention in _MENTIONS[len(scene.events)])


def _word(scene: Scene, mention: tuple[tuple[int, int], ...], rng: Random) -> Wording:
    said = tuple(
        Event(event.sound, event.pitch if pitch else None, event.loudness if loudness else None)
        for event, (pitch, loudness) in zip(scene.events, mention, strict=True)
    )
    if scene.relation == "while" and rng.random() < 0.5:
        said = said[::-1]
    template = pick(rng, _TEMPLATES[scene.relation], first=0.4)
    slots: dict[str, str] = {}
    for name, event in zip("ab", said):
        words = _LEXICON[event.sound]
        adjectives = []
        if event.loudness is not None:
            adjectives.append(pick(rng, _LOUDNESS[event.loudness], first=0.75))
        if event.pitch is not None:
            adjectives.append(pick(rng, _PITCH[event.pitch], first=0.75))
        verb = pick(rng, range(len(words.finite)), first=0.75)
        phrase = " ".join([*adjectives, words.noun])
        article = "an" if phrase[0] in "aeiou" else "a"
        slots[name] = f"{article} {phrase} {words.finite[verb]}"
        slots[f"{name}_ing"] = f"{article} {phrase} {words.gerund[verb]}"
    return Wording(template.format(**slots), Scene(scene.relation, said))
