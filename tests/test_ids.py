from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.ids import (
    caption_group_id,
    caption_id,
    clip_id,
    normalize_caption,
    stable_digest,
)


def test_clip_ids_are_fixed_numbers() -> None:
    # Written into checkpoints with the queue: a change of these is a change of the file format.
    assert clip_id("audiocaps", "-0Gj8-vB1q4") == 1839341288065269171
    assert caption_id("A man is speaking.") == 4041194097110870293
    assert caption_group_id("esc50/dog") == 3045493534237147331


def test_ids_are_equal_in_processes_with_another_hash_salt() -> None:
    code = "from atr_moco_plugin.ids import *; print(clip_id('d', 'k'), caption_id('a dog'))"
    root = Path(__file__).resolve().parents[1]
    seen = set()
    for salt in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout.strip())
    assert seen == {f"{clip_id('d', 'k')} {caption_id('a dog')}"}


@given(st.text(), st.text())
def test_ids_fit_a_non_negative_int64(dataset: str, key: str) -> None:
    assert 0 <= clip_id(dataset, key) < 2**63


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_digest_tells_part_boundaries_apart(a: list[str], b: list[str]) -> None:
    assert (stable_digest("x", *a) == stable_digest("x", *b)) == (a == b)


def test_digest_tells_types_and_domains_apart() -> None:
    assert stable_digest("x", "1") != stable_digest("x", 1)
    assert stable_digest("x", "1") != stable_digest("y", "1")


def test_equal_keys_of_two_datasets_are_two_clips() -> None:
    assert clip_id("audiocaps", "17") != clip_id("clotho", "17")
    assert clip_id("ab", "c") != clip_id("a", "bc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  A Man\tis  speaking. ", "a man is speaking"),
        ("a low-pitched hum, then silence!", "a low pitched hum then silence"),
        ("Don\u2019t stop", "dont stop"),
        ("don't STOP", "dont stop"),
        ("\uff21 dog\u00a0barks", "a dog barks"),
        ("Stra\u00dfe", "strasse"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u72d7\u5728\u53eb\u3002", "\u72d7\u5728\u53eb"),
        ("cafe\u0301", "caf\u00e9"),
        ("$%&...", ""),
        # Emoji are words; how they are to be drawn is no part of them.
        ("a \U0001f415 barks", "a \U0001f415 barks"),
        ("\U0001f415\U0001f408!", "\U0001f415 \U0001f408"),
        ("\u2602\ufe0f", "\u2602"),
        ("\U0001f468\u200d\U0001f467", "\U0001f468 \U0001f467"),
        ("\u266a music \u266a", "\u266a music \u266a"),
        # Signs and bullets are not, as before.
        ("20\u00b0C \u00a9 \u2022 \u25cf dog \u2192 cat", "20 c dog cat"),
        ("\u845b\U000e0100", "\u845b"),
        ("\ufe0f", ""),
        ("\u0301", ""),
        ("\u3164 \u2060 \u2800", ""),
        ("\u200d\u0301\u20e3", ""),
    ],
)
def test_normalize_caption(text: str, expected: str) -> None:
    assert normalize_caption(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_caption(text)
    assert normalize_caption(once) == once
    assert once == " ".join(once.split())


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_gives_what_the_long_one_gives(text: str) -> None:
    # The letter keeps the long way from being a short one, and is cut off again.
    assert normalize_caption(text) == normalize_caption(f"{text} \u00e9")[:-1].rstrip()


def test_caption_id_ignores_case_punctuation_and_space_and_nothing_else() -> None:
    assert caption_id("A dog barks") == caption_id(" a  DOG barks!")
    assert caption_id("a dog barks") != caption_id("a dog bark")
    assert caption_id("a dog") != caption_group_id("a dog")


def test_emoji_are_told_apart_and_their_form_is_not() -> None:
    # The first three had one id, that of the variation selector alone; the fourth had none.
    texts = ["\U0001f415\ufe0f", "\U0001f408\ufe0f", "\u2602\ufe0f", "\u2602", "\u2602\ufe0e"]
    ids = [caption_id(text) for text in texts]
    assert len(set(ids[:3])) == 3 and ids[2] == ids[3] == ids[4]
    assert caption_id("a \U0001f415 barks") != caption_id("a \U0001f408 barks")


ORDINARY = {  # as they were before emoji were words: queues in checkpoints have them
    "A man is speaking.": 4041194097110870293,
    "A dog barks, then a low-pitched hum!": 4421806556022706276,
    "Un caf\u00e9 bruyant \u2013 plein": 5432854109947979892,
    "it doesn\u2019t stop": 8095746025898297244,
    "20\u00b0C \u2122 \u00a9": 7360544897024272817,
    "\u72d7\u5728\u53eb\u3002": 7728997782251614517,
    "\u0928\u092e\u0938\u094d\u0924\u0947": 1851950658715219345,
    "\uc0c8\uac00 \uc6b4\ub2e4": 320208054707858793,
    "Stra\u00dfe \u2022 \u2192 e\u0301": 2544595609209388342,
}


def test_ids_of_ordinary_captions_stay() -> None:
    assert {text: caption_id(text) for text in ORDINARY} == ORDINARY


INVISIBLE = ["\u200b", "\ufe0f", "\u0301", "\u3164", "\u2060\ufe0f", "\u20e3", "\U000e0100"]


@pytest.mark.parametrize("text", ["", "  ", "?!", *INVISIBLE])
def test_a_caption_without_words_raises(text: str) -> None:
    with pytest.raises(ValueError, match="no letters or digits"):
        caption_id(text)


def test_a_group_without_a_name_raises() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        caption_group_id("")
