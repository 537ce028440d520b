"""Lists and numbers of things, as messages have them."""

from __future__ import annotations

import pytest

from atr_moco_plugin.errors import counted, listed


@pytest.mark.parametrize(
    ("items", "most", "of", "text"),
    [
        ("abc", 3, None, "a, b, c"),
        ("abcd", 3, None, "a, b, c, d"),
        ("abcde", 3, None, "a, b, c and 2 more"),
        ("ab", 1, None, "a, b"),
        ("", 3, None, ""),
        # One that is not there cannot be named.
        ("abc", 3, 4, "a, b, c and 1 more"),
        ("abcd", 3, 4, "a, b, c, d"),
        ("abcd", 3, 1_005, "a, b, c and 1,002 more"),
    ],
)
def test_all_are_named_where_one_would_be_left(
    items: str, most: int, of: int | None, text: str
) -> None:
    assert listed(items, most, of=of) == text


def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "clip") for n in (0, 1, 2, 1_000)] == [
        "0 clips", "1 clip", "2 clips", "1,000 clips"
    ]  # fmt: skip
    assert (counted(1, "query", "queries"), counted(2, "query", "queries")) == (
        "1 query",
        "2 queries",
    )
