"""Scenes of one to three recorded sounds, and a grammar that words them in captions.

The sentence patterns are those of the toy data set that take whole clauses, and more in
``scene_words.json`` beside this file, for three sounds too. ``{a}``, ``{b}`` and ``{c}`` stand for
a phrase of a class, such as "a dog is barking", with or without how far away it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

from atr_moco_plugin.data.sets.toy_captions import CLAUSE_PATTERNS, Arrangement, pick

_WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("scene_words.json").read_text("utf-8"))

# Of which events each caption of a clip says how far away they are, in the order of the scene.
_MENTIONS = {
    1: ("d", "-", "d", "-", "d"),
    2: ("dd", "--", "d-", "-d", "dd"),
    3: ("ddd", "---", "d--", "-d-", "--d"),
}


@dataclass(frozen=True, slots=True)
class SceneEvent:
    """One sound of a scene.

    Attributes:
        label: its class.
        far: whether it is quiet, which captions call "in the distance"; else it is "nearby".
    """

    label: str
    far: bool


@dataclass(frozen=True, slots=True)
class RecordedScene:
    """What is heard in a clip.

    Attributes:
        arrangement: ``"alone"``: one event; ``"then"``: two or three, one after the other;
            ``"while"``: two or three at once.
        events: one to three events of different classes; in ``"then"`` in their order.
    """

    arrangement: Arrangement
    events: tuple[SceneEvent, ...]


def patterns(arrangement: Arrangement, events: int) -> tuple[str, ...]:
    """The sentence patterns of scenes with that many events, the commonest first."""
    own: dict[str, list[str]] = _WORDS["patterns"]
    if events == 3:
        return tuple(own[f"{arrangement} of three"])
    return (*CLAUSE_PATTERNS[arrangement], *own[arrangement])


def describe_scene(
    scene: RecordedScene, phrases: Mapping[str, Sequence[str]], rng: Random
) -> tuple[str, ...]:
    """Five true captions of ``scene``, worded and detailed differently.

    Each names all of the scene's events and how they are arranged; the first says of every event
    how far away it is. The first phrase of a class and the first wording of every part are chosen
    most of the time, so that two clips with one scene often share a caption's exact text.

    Args:
        scene: what is heard.
        phrases: class to its phrases, one or more.
        rng: which wordings are chosen.
    """
    return tuple(_word(scene, phrases, said, rng) for said in _MENTIONS[len(scene.events)])


def _word(
    scene: RecordedScene, phrases: Mapping[str, Sequence[str]], mentions: str, rng: Random
) -> str:
    said = tuple(zip(scene.events, mentions, strict=True))
    if scene.arrangement == "while":  # at once: in any order
        said = pick(rng, tuple(permutations(said)))
    pattern = pick(rng, patterns(scene.arrangement, len(said)), first=0.4)
    slots: dict[str, str] = {}
    for name, (event, mention) in zip("abc", said, strict=False):
        slots[name] = pick(rng, phrases[event.label], first=0.6)
        if mention == "d":
            slots[name] += " " + pick(rng, _WORDS["far" if event.far else "near"], first=0.75)
    # Not `format`: a folder's name may have braces.
    return re.sub(r"\{(\w)\}", lambda slot: slots[slot[1]], pattern)
