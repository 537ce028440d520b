from __future__ import annotations

import re
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.sets.scene_captions import (
    RecordedScene,
    SceneEvent,
    describe_scene,
    patterns,
)

PHRASES = {"dog": ("a dog barks", "woofs of a dog"), "rain": ("rain falls",), "{b}": ("{b} {a}",)}
CLASS_OF = {phrase: label for label, phrases in PHRASES.items() for phrase in phrases}
PHRASE = "|".join(map(re.escape, CLASS_OF))
FAR = {"nearby": False, "up close": False, "in the distance": True, "far away": True}
AWAY = "|".join(FAR)

events = st.builds(SceneEvent, st.sampled_from(sorted(PHRASES)), st.booleans())
scenes = st.lists(events, min_size=1, max_size=3, unique_by=lambda event: event.label).flatmap(
    lambda drawn: st.builds(
        RecordedScene,
        st.just("alone") if len(drawn) == 1 else st.sampled_from(["then", "while"]),
        st.just(tuple(drawn)),
    )
)


def understand(caption: str, number: int) -> tuple[str, list[tuple[str, bool | None]]]:
    """The arrangement, and in its order what is said of each event: class and, if said, far."""
    for arrangement in ["alone"] if number == 1 else ["then", "while"]:
        for pattern in patterns(arrangement, number):
            expression = re.escape(pattern).replace("\\{", "{").replace("\\}", "}")
            expression = re.sub(
                r"{(\w)}", rf"(?P<\1>{PHRASE})(?: (?P<\1_away>{AWAY}))?", expression
            )
            if match := re.fullmatch(expression, caption):
                said = match.groupdict()
                names = "abc"[:number]
                return arrangement, [
                    (CLASS_OF[said[name]], FAR.get(said[f"{name}_away"])) for name in names
                ]
    raise AssertionError(f"no pattern of {caption!r}")


@given(scenes, st.integers(0, 500))
def test_captions_are_true(scene: RecordedScene, seed: int) -> None:
    captions = describe_scene(scene, PHRASES, Random(seed))
    assert len(captions) == 5
    heard = [(event.label, event.far) for event in scene.events]
    for caption in captions:
        arrangement, said = understand(caption, len(heard))
        assert arrangement == scene.arrangement
        if arrangement == "while":  # in any order
            said.sort(key=lambda item: item[0])
            heard.sort(key=lambda item: item[0])
        for (label, far), (true_label, true_far) in zip(said, heard, strict=True):
            assert label == true_label and far in (None, true_far)
    assert None not in [far for _, far in understand(captions[0], len(heard))[1]]


def test_five_wordings_and_more() -> None:
    for number in (1, 2, 3):
        for arrangement in ["alone"] if number == 1 else ["then", "while"]:
            known = patterns(arrangement, number)
            assert len(set(known)) == len(known) >= 4
    scene = RecordedScene("then", (SceneEvent("dog", True), SceneEvent("rain", False)))
    texts = {text for seed in range(300) for text in describe_scene(scene, PHRASES, Random(seed))}
    assert "a dog barks in the distance then rain falls nearby" in texts
    assert "rain falls after woofs of a dog" in texts
    assert describe_scene(scene, PHRASES, Random(3)) == describe_scene(scene, PHRASES, Random(3))


def test_two_clips_of_one_scene_often_share_a_text() -> None:
    scene = RecordedScene("while", (SceneEvent("dog", True), SceneEvent("rain", False)))
    pairs = 200
    shared = sum(
        bool(
            set(describe_scene(scene, PHRASES, Random(2 * seed)))
            & set(describe_scene(scene, PHRASES, Random(2 * seed + 1)))
        )
        for seed in range(pairs)
    )
    assert 0.2 < shared / pairs < 0.99
