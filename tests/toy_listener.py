"""A listener who understands the captions of the toy data set and knows every scene."""

from __future__ import annotations

import json
import re
from functools import cache
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atr_moco_plugin.data.dataset import AudioTextDataset
from atr_moco_plugin.data.sets import toy_captions
from atr_moco_plugin.data.sets.toy_captions import Event, Scene

WORDS = json.loads(Path(toy_captions.__file__).with_name("toy_words.json").read_text())


class Said(NamedTuple):
    """What a caption says of an event; None where it says nothing."""

    sound: str
    pitch: int | None
    loudness: int | None

    def fits(self, event: Event) -> bool:
        """Whether it is true of the event."""
        heard = (event.sound, event.pitch, event.loudness)
        return all(said in (None, true) for said, true in zip(self, heard, strict=True))


def _one_of(options: list[list[str]]) -> dict[str, int]:
    return {word: value for value, words in enumerate(options) for word in words}


PITCH, LOUDNESS = _one_of(WORDS["pitch"]), _one_of(WORDS["loudness"])
SOUND = {
    f"{words['noun']} {verb}": sound
    for sound, words in WORDS["sounds"].items()
    for verb in words["finite"] + words["gerund"]
}


def _event(phrase: str) -> Said:
    loud, pitch = "|".join(LOUDNESS), "|".join(PITCH)
    match = re.fullmatch(rf"an? (?:({loud}) )?(?:({pitch}) )?(.+)", phrase)
    assert match is not None and match[3] in SOUND, phrase
    return Said(SOUND[match[3]], PITCH.get(match[2] or ""), LOUDNESS.get(match[1] or ""))


@cache
def understand(caption: str) -> tuple[str, tuple[Said, ...]]:
    """The arrangement and the events that a caption tells of."""
    for arrangement, patterns in WORDS["patterns"].items():
        for pattern in patterns:
            expression = re.sub(r"\{(.)(_ing)?\}", r"(?P<\1>an? .+?)", pattern)
            match = re.fullmatch(expression, caption)
            if match is not None:
                phrases = match.groupdict()
                return arrangement, tuple(_event(phrases[name]) for name in sorted(phrases))
    raise AssertionError(f"no pattern of {caption!r}")


def fits(caption: str, scene: Scene) -> bool:
    """Whether a caption is true of a scene; the order counts only in "then"."""
    arrangement, said = understand(caption)
    if arrangement != scene.arrangement:
        return False
    orders = [scene.events, scene.events[::-1]] if arrangement == "while" else [scene.events]
    return any(all(s.fits(e) for s, e in zip(said, order, strict=True)) for order in orders)


def truth(dataset: AudioTextDataset, split: str) -> np.ndarray:
    """``[A, C]`` bool: which captions are true of which clips."""
    clips = dataset.clips(split)
    captions = [text for clip in clips for text in clip.captions]
    return np.array([[fits(text, clip.source) for text in captions] for clip in clips])


def oracle_r_sum(true_of: np.ndarray) -> dict[str, float]:
    """R^sum of this listener, whose score is 1 where a caption is true of a clip and else 0: the
    ceiling of any model. Ties count for it, at random (the expectation) or against it."""
    clips_of_caption = true_of.sum(axis=0)
    others_of_clip = true_of.sum(axis=1) - 5
    random, pessimistic = 0.0, 0.0
    for k in (1, 5, 10):
        # text to audio: the own clip is one of n tied ones.
        random += float(np.mean(np.minimum(k / clips_of_caption, 1)))
        pessimistic += float(np.mean(clips_of_caption <= k))
        # audio to text: the best of five own captions among them and m others, all tied.
        misses = [comb(int(m), k) / comb(int(m) + 5, k) if m >= k else 0.0 for m in others_of_clip]
        random += 1 - float(np.mean(misses))
        pessimistic += float(np.mean(others_of_clip < k))
    return {"optimistic": 600.0, "random": 100 * random, "pessimistic": 100 * pessimistic}
