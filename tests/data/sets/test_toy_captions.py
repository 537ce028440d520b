from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.sets.toy_captions import NUM_CAPTIONS, Event, Scene, describe, pick
from atr_moco_plugin.data.sets.toy_sounds import SOUNDS

DOG = Event("dog", 0, 1)
BEE = Event("bee", 2, 0)

events = st.builds(Event, st.sampled_from(sorted(SOUNDS)), st.integers(0, 2), st.integers(0, 1))
scenes = st.one_of(
    st.builds(lambda a: Scene("alone", (a,)), events),
    st.builds(
        lambda relation, a, b: Scene(relation, (a, b)),
        st.sampled_from(["then", "while"]),
        events,
        events,
    ).filter(lambda scene: scene.events[0].sound != scene.events[1].sound),
)


@given(scenes, st.integers(0, 1000))
def test_captions_are_true_and_say_enough(scene: Scene, seed: int) -> None:
    wordings = describe(scene, Random(seed))
    assert len(wordings) == NUM_CAPTIONS
    for text, says in wordings:
        assert says.fits(scene)
        assert len(says.events) == len(scene.events)
        for event in says.events:
            assert event.pitch is not None or event.loudness is not None
        assert text == " ".join(text.split()) and "{" not in text
    for event in wordings[0].says.events:
        assert event.pitch is not None and event.loudness is not None


@given(scenes, st.integers(0, 1000))
def test_the_text_says_what_it_is_marked_to_say(scene: Scene, seed: int) -> None:
    pitch = ({"low", "deep"}, {"mid-pitched"}, {"high", "shrill"})
    loudness = ({"quiet", "faint"}, {"loud", "strong"})
    for text, says in describe(scene, Random(seed)):
        words = text.split()
        for options, values in (
            (pitch, [event.pitch for event in says.events]),
            (loudness, [event.loudness for event in says.events]),
        ):
            for value, names in enumerate(options):
                assert sum(word in names for word in words) == values.count(value)


def test_the_same_seed_gives_the_same_words() -> None:
    scene = Scene("then", (DOG, BEE))
    assert describe(scene, Random(4)) == describe(scene, Random(4))
    assert describe(scene, Random(4)) != describe(scene, Random(5))


def test_wordings() -> None:
    texts = {
        w.text for seed in range(400) for w in describe(Scene("then", (DOG, BEE)), Random(seed))
    }
    assert "a loud low dog barks then a quiet high bee buzzes" in texts
    assert "a quiet bee buzzes after a loud dog barks" in texts
    alarm = Scene("alone", (Event("alarm", 1, None),))
    texts = {w.text for seed in range(50) for w in describe(alarm, Random(seed))}
    assert "an alarm beeps alone" in texts


@pytest.mark.parametrize(
    ("relation", "said", "fits"),
    [
        ("then", (DOG, BEE), True),
        ("then", (BEE, DOG), False),
        ("while", (DOG, BEE), False),
        ("then", (Event("dog", None, 1), Event("bee", 2, None)), True),
        ("then", (Event("dog", 1, None), BEE), False),
        ("then", (DOG, Event("bee", 2, 1)), False),
        ("then", (DOG, Event("bird", 2, 0)), False),
        ("alone", (DOG,), False),
    ],
)
def test_fits(relation: str, said: tuple[Event, ...], fits: bool) -> None:
    assert Scene(relation, said).fits(Scene("then", (DOG, BEE))) is fits


def test_while_has_no_order() -> None:
    assert Scene("while", (BEE, DOG)).fits(Scene("while", (DOG, BEE)))


def test_pick_prefers_the_first() -> None:
    rng = Random(0)
    drawn = [pick(rng, "abc", first=0.6) for _ in range(3000)]
    assert drawn.count("a") / 3000 == pytest.approx(0.6, abs=0.03)
    assert drawn.count("b") / 3000 == pytest.approx(0.2, abs=0.03)
    uniform = [pick(rng, "abc") for _ in range(3000)]
    assert uniform.count("a") / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert pick(rng, "z", first=0.1) == "z"
