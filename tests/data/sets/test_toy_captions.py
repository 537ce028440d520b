from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_listener import fits, understand

from atr_moco_plugin.data.sets.toy_captions import Event, Scene, describe, pick
from atr_moco_plugin.data.sets.toy_sounds import SOUNDS

DOG = Event("dog", 0, 1)
BEE = Event("bee", 2, 0)

events = st.builds(Event, st.sampled_from(sorted(SOUNDS)), st.integers(0, 2), st.integers(0, 1))
scenes = st.one_of(
    st.builds(lambda a: Scene("alone", (a,)), events),
    st.builds(
        lambda arrangement, a, b: Scene(arrangement, (a, b)),
        st.sampled_from(["then", "while"]),
        events,
        events,
    ).filter(lambda scene: scene.events[0].sound != scene.events[1].sound),
)


@given(scenes, st.integers(0, 1000))
def test_captions_are_true_and_say_enough(scene: Scene, seed: int) -> None:
    captions = describe(scene, Random(seed))
    assert len(captions) == 5
    for text in captions:
        assert fits(text, scene)
        _, said = understand(text)
        assert len(said) == len(scene.events)
        assert all(event.pitch is not None or event.loudness is not None for event in said)
    for event in understand(captions[0])[1]:
        assert event.pitch is not None and event.loudness is not None


def test_the_same_seed_gives_the_same_words() -> None:
    scene = Scene("then", (DOG, BEE))
    assert describe(scene, Random(4)) == describe(scene, Random(4))
    assert describe(scene, Random(4)) != describe(scene, Random(5))


def test_wordings() -> None:
    scene = Scene("then", (DOG, BEE))
    texts = {text for seed in range(400) for text in describe(scene, Random(seed))}
    assert "a loud low dog barks then a quiet high bee buzzes" in texts
    assert "a quiet bee buzzes after a loud dog barks" in texts
    alarm = Scene("alone", (Event("alarm", 1, 0),))
    texts = {text for seed in range(50) for text in describe(alarm, Random(seed))}
    assert "a quiet mid-pitched alarm beeps alone" in texts


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a loud low dog barks then a quiet high bee buzzes", True),
        ("a quiet high bee buzzes then a loud low dog barks", False),
        ("a loud low dog barks while a quiet high bee buzzes", False),
        ("a high bee buzzes after a loud dog barks", True),
        ("a mid-pitched dog barks then a quiet high bee buzzes", False),
        ("a loud low dog barks then a loud high bee buzzes", False),
        ("a loud low dog barks then a quiet high bird sings", False),
        ("a loud low dog barks alone", False),
    ],
)
def test_the_listener_of_these_tests_understands(caption: str, true: bool) -> None:
    assert fits(caption, Scene("then", (DOG, BEE))) is true


def test_while_has_no_order() -> None:
    assert fits("a quiet bee buzzes while a loud dog barks", Scene("while", (DOG, BEE)))


def test_pick_prefers_the_first() -> None:
    rng = Random(0)
    drawn = [pick(rng, "abc", first=0.6) for _ in range(3000)]
    assert drawn.count("a") / 3000 == pytest.approx(0.6, abs=0.03)
    assert drawn.count("b") / 3000 == pytest.approx(0.2, abs=0.03)
    uniform = [pick(rng, "abc") for _ in range(3000)]
    assert uniform.count("a") / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert pick(rng, "z", first=0.1) == "z"
