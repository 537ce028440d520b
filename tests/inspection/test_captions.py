from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.sets.audiocaps import read_audiocaps_captions
from atr_moco_plugin.data.summary import shared_captions
from atr_moco_plugin.ids import normalize_caption
from atr_moco_plugin.inspection.captions import (
    count_shared,
    find_near,
    find_odd,
    find_repeated,
    find_shared,
    near_form,
    words_a_caption,
)
from atr_moco_plugin.inspection.texts import Texts, texts_of

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "captions" / "audiocaps"


def texts(**splits: dict[str, list[str]]) -> Texts:
    """Texts of splits of clips of captions."""
    return texts_of(
        {
            split: [Clip(key, tuple(captions), None) for key, captions in clips.items()]
            for split, clips in splits.items()
        }
    )


def test_a_text_of_two_clips_is_shared_however_it_is_written() -> None:
    found = find_shared(
        "d",
        texts(
            train={"a": ["A dog barks"], "b": ["a dog barks.", "A cat"], "c": ["A cow"]},
            test={"e": ["A DOG BARKS!", "A dog barks"], "f": ["A cow"]},
        ),
    )
    dog, cow = found.findings
    assert (dog.kind, dog.split, dog.key) == ("shared caption", "train", "a")
    assert dog.others == (("d", "train", "b"), ("d", "test", "e"))
    assert dog.what == "“a dog barks” is said of 3 clips (2 train, 1 test)."
    assert cow.others == (("d", "test", "f"),)
    assert not dog.exclude
    assert found.captions == {"train": 3, "test": 3}


def test_shared_within_a_split_is_counted_to_the_letter_and_by_its_words() -> None:
    own = texts(
        train={"a": ["A dog"], "b": ["A dog"], "c": ["a dog."]}, test={"d": ["A dog", "A dog"]}
    )
    assert count_shared(own, str) == {"train": 2, "test": 0}
    assert count_shared(own) == {"train": 3, "test": 0}


def test_clips_of_a_group_share_on_purpose_and_two_groups_do_not() -> None:
    def clip(key: str, text: str, group: str) -> Clip:
        return Clip(key, (text,), None, group, group)

    dogs = [clip("a", "A dog", "dog"), clip("b", "A dog", "dog")]
    assert not find_shared("d", texts_of({"train": dogs})).findings
    mixed = texts_of({"train": [*dogs, clip("c", "a dog", "wolf")]})
    assert len(find_shared("d", mixed).findings[0].others) == 2
    assert count_shared(mixed) == {"train": 3}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A dog is barking as birds sing", "Birds sing as the dog barks"),
        ("A man runs", "a man running"),
        ("Horses trot", "A horse is trotting"),
        ("A man speaks then a dog barks", "The man speaking, then a dog is barking!"),
    ],
)
def test_articles_endings_and_order_make_no_other_text(one: str, two: str) -> None:
    assert near_form(one) == near_form(two)
    found = find_near("d", texts(train={"a": [one], "b": [two]}))
    assert found.captions == {"train": 2}
    assert found.findings[0].others == (("d", "train", "b"),)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A dog barks", "A cat barks"),
        ("A man speaks, then a dog barks", "A dog barks, then a man speaks"),
        ("A dog barks followed by a bell", "A bell followed by a dog barking"),
        ("A dog barks and barks", "A dog barks"),
    ],
)
def test_other_words_and_another_course_of_events_are_another_text(one: str, two: str) -> None:
    assert not find_near("d", texts(train={"a": [one], "b": [two]})).findings


def test_a_clips_own_wordings_are_not_near_and_equal_texts_are_not_near() -> None:
    own = texts(train={"a": ["A dog barks", "A dog is barking"], "b": ["A cow", "a cow."]})
    assert not find_near("d", own).findings
    assert not find_near("d", texts(train={"a": ["A cow"], "b": ["a cow."]})).findings


def test_only_captions_that_another_clip_has_in_other_words_are_near() -> None:
    own = texts(train={"a": ["A dog barks", "Dogs bark"], "b": ["A dog barks"]})
    # The first caption of a has another wording in a alone; that of b has one in a.
    assert find_near("d", own).captions == {"train": 2}


@given(st.text(max_size=60))
def test_the_near_form_depends_on_the_normalized_text_alone(text: str) -> None:
    assert near_form(text) == near_form(normalize_caption(text))


WORDS = st.lists(
    st.sampled_from(["a", "the", "dog", "dogs", "barking", "barks", "then", "Dog!"]),
    min_size=1,
    max_size=4,
).map(" ".join)
CLIPS = st.lists(
    st.tuples(st.lists(WORDS, min_size=1, max_size=3), st.sampled_from([None, "x", "y"])),
    min_size=1,
    max_size=6,
)


@given(CLIPS, CLIPS)
def test_shared_and_near_captions_are_those_that_a_look_at_all_pairs_finds(
    train: list[tuple[list[str], str | None]], test: list[tuple[list[str], str | None]]
) -> None:
    splits = {
        split: [Clip(f"{split}{n}", tuple(own), None, None, g) for n, (own, g) in enumerate(clips)]
        for split, clips in (("train", train), ("test", test))
    }
    rows = [
        (split, clip.caption_group or clip.key, text)
        for split, clips in splits.items()
        for clip in clips
        for text in clip.captions
    ]
    shared = [
        split
        for split, holder, text in rows
        if any(
            holder != its and normalize_caption(text) == normalize_caption(other)
            for _, its, other in rows
        )
    ]
    near = [
        split
        for split, holder, text in rows
        if any(
            holder != its
            and near_form(text) == near_form(other)
            and normalize_caption(text) != normalize_caption(other)
            for _, its, other in rows
        )
    ]
    own = texts_of(splits)
    assert find_shared("d", own).captions == Counter(shared)
    assert find_near("d", own).captions == Counter(near)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=8))
def test_shared_captions_are_as_many_as_the_data_set_says(clips: list[list[str]]) -> None:
    own = [Clip(str(number), tuple(texts), None) for number, texts in enumerate(clips)]
    assert find_shared("d", texts_of({"train": own})).captions["train"] == shared_captions(own)[0]


def test_a_text_that_one_clip_has_twice_is_repeated() -> None:
    found = find_repeated("d", texts(train={"a": ["A dog", "a dog!", "A cat"], "b": ["A dog"]}))
    assert [(x.key, x.what) for x in found.findings] == [
        ("a", "“A dog” is 2 captions of this clip.")
    ]
    assert found.captions == {"train": 2}


def test_odd_texts() -> None:
    long = "word " * 41
    own = texts(
        train={
            "a": ["Rain"],
            "b": [long],
            "c": ["A cafÃ© is loud"],
            "d": ["A dog &amp; a cat"],
            "e": ["A bird\ufffds song"],
            "f": ["Un café bruyant à Orléans", "犬が吠えている"],
            "g": ["Rain falls", "a man & a woman, 3 < 4"],
        }
    )
    found = find_odd("d", own)
    keys = {kind: [finding.key for finding in look.findings] for kind, look in found.items()}
    assert keys == {
        "one word": ["a"],
        "long caption": ["b"],
        "damaged text": ["c", "e"],
        "markup": ["d"],
    }
    assert "“A café is loud”" in found["damaged text"].findings[0].what
    assert "has 41 words, the median" in found["long caption"].findings[0].what


def test_a_class_of_one_word_is_no_finding() -> None:
    clips = [Clip("a", ("Rain",), None, "rain", "rain")]
    assert not find_odd("d", texts_of({"train": clips}))["one word"].findings


def test_words_a_caption_counts_every_caption() -> None:
    own = texts(train={"a": ["A dog"], "b": ["A dog", "A dog barks"]})
    assert sorted(words_a_caption(own)) == [2, 2, 3]
    assert words_a_caption({}).shape == (0,)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real captions are not beside the repository")
def test_the_real_audiocaps_has_5722_captions_that_another_clip_has_too() -> None:
    tables = {"train": read_audiocaps_captions(REAL / "train.csv")["train"]}
    clips = [Clip(item.key, item.captions, None) for item in tables["train"].recordings.values()]
    own = texts_of({"train": clips})
    assert count_shared(own, str) == {"train": 5722}
    assert count_shared(own) == find_shared("audiocaps", own).captions == {"train": 5789}
