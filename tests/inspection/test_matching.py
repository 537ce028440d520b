"""Matches of fingerprints that are made of random words with bits that are flipped."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atr_moco_plugin.inspection import matching
from atr_moco_plugin.inspection.fingerprint import SECONDS_A_WORD, SECONDS_OF_A_WORD, Words
from atr_moco_plugin.inspection.matching import Match, find_matches


def random_words(seed: int, number: int) -> Words:
    return np.random.default_rng(seed).integers(1, 2**32, number, np.uint32)


def flipped(words: Words, share: float, seed: int = 0) -> Words:
    """The words with a share of their bits flipped; silence stays silence."""
    flips = np.random.default_rng(seed).random((len(words), 32)) < share
    masks = np.packbits(flips, axis=1).view(np.uint32).reshape(-1)
    return np.where(words > 0, words ^ masks, 0).astype(np.uint32)


def test_a_cut_copy_is_found_with_its_place() -> None:
    whole = random_words(0, 600)
    cut = flipped(whole[200:400], 0.1)
    (match,) = find_matches([random_words(1, 300), whole, cut])
    assert (match.first, match.second) == (1, 2)
    assert match.shift == pytest.approx(200 * SECONDS_A_WORD)
    assert match.begin == pytest.approx(200 * SECONDS_A_WORD)
    assert match.end == pytest.approx(399 * SECONDS_A_WORD + SECONDS_OF_A_WORD)
    assert match.seconds == pytest.approx(match.end - match.begin)
    assert match.share == 1


def test_what_two_clips_have_in_common_may_be_a_part_of_both() -> None:
    common = random_words(0, 250)
    one = np.concatenate([random_words(1, 100), common])
    two = np.concatenate([common, random_words(2, 400)])
    (match,) = find_matches([one, two])
    # The spans at its end may reach over it, by as much as a span bears of other words.
    assert 250 <= round(match.share * 350) <= 250 + 40
    assert match.shift == pytest.approx(100 * SECONDS_A_WORD)
    assert match.begin <= 100 * SECONDS_A_WORD


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=0, max_size=6),
    start=st.integers(0, 100),
    number=st.integers(80, 300),
    share=st.sampled_from([0.0, 0.05, 0.1]),
)
def test_copies_are_found_and_nothing_else_is(
    lengths: list[int], start: int, number: int, share: float
) -> None:
    prints = [random_words(seed, n) for seed, n in enumerate(lengths)]
    original = random_words(99, start + number)
    prints += [original, flipped(original[start:], share)]
    assert [match[:2] for match in find_matches(prints)] == [(len(lengths), len(lengths) + 1)]


def test_the_order_of_two_does_not_matter() -> None:
    one, two = random_words(0, 300), flipped(random_words(0, 300)[50:], 0.05)
    (forth,), (back,) = find_matches([one, two]), find_matches([two, one])
    assert forth.shift == -back.shift
    assert forth[2:4] == back[2:4]


def test_silence_matches_nothing_and_is_not_counted() -> None:
    silence = np.zeros(300, np.uint32)
    sound = random_words(0, 100)
    both = np.concatenate([silence, sound, silence])
    assert find_matches([silence, silence]) == []
    (match,) = find_matches([both, np.concatenate([sound, silence])])
    assert match.share == 1
    assert match.shift == pytest.approx(300 * SECONDS_A_WORD)


def test_a_short_sound_has_to_be_more_alike() -> None:
    sound = np.concatenate([random_words(0, 26), np.zeros(100, np.uint32)])
    assert len(find_matches([sound, flipped(sound, 0.05)])) == 1
    assert find_matches([sound[:20], sound[:20]]) == []


@pytest.mark.parametrize("prints", [[], [np.zeros(0, np.uint32)], [random_words(0, 50)] * 1])
def test_where_there_are_no_two_there_is_no_match(prints: list[Words]) -> None:
    assert find_matches(prints) == []


def test_many_copies_hang_together() -> None:
    original = random_words(0, 150)
    prints = [flipped(original, 0.03, seed) for seed in range(60)]
    matches = find_matches(prints)
    reached = {0}
    for match in matches:  # in order, so that one pass is enough for pairs that follow each other
        if match.first in reached or match.second in reached:
            reached |= {match.first, match.second}
    assert reached == set(range(60))
    assert len(matches) <= 60 * 59 / 2


def test_words_of_a_steady_sound_do_not_take_all_time() -> None:
    steady = [np.full(500, 12345, np.uint32) for _ in range(40)]
    begun = time.process_time()  # what runs beside it does not count
    find_matches(steady)
    # Of every word with every other it would be many minutes, on any machine.
    assert time.process_time() - begun < 100


def test_a_smaller_table_still_finds_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MAX_ENTRIES", 250)
    original = random_words(0, 600)
    found = find_matches([original, random_words(1, 300), flipped(original[3:], 0.05)])
    assert [(match.first, match.second) for match in found] == [(0, 2)]
    assert isinstance(found[0], Match)
