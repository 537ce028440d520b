from __future__ import annotations

from typing import Any

import pytest

from atr_moco_plugin.io.changes import changes, flat


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 3, "b": 2}, "a was 1 and is 3"),
        ({"a": 1}, {"b": 2}, ""),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, ""),
        ({"a": {"x": 1}}, {"a": {"x": 2}, "ab": 3}, "a.x was 1 and is 2"),
        # A part that was switched on or off was not seen.
        ({"a": None}, {"a": {"x": {"y": 1}}}, "a was None and is {'x.y': 1}"),
        ({"a": {"x": 1, "y": 2}}, {"a": None}, "a was {'x': 1, 'y': 2} and is None"),
        ({"a": {"b": {}}}, {"a": {"b": {"x": 1}}}, "a.b was {} and is {'x': 1}"),
    ],
)
def test_what_has_changed_is_named(before: dict[str, Any], now: dict[str, Any], said: str) -> None:
    assert changes(flat(before), flat(now)) == said
