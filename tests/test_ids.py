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


@pytest.mark.parametrize("text", ["", "  ", "?!", "\u200b"])
def test_a_caption_without_words_raises(text: str) -> None:
    with pytest.raises(ValueError, match="no letters or digits"):
        caption_id(text)


def test_a_group_without_a_name_raises() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        caption_group_id("")
