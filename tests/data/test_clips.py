from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atr_moco_plugin.data.clips import Clip, ClipTable

# Half surrogate pairs too: Python reads names of files that are not valid UTF-8 as such.
texts = st.text(st.characters(exclude_categories=()), max_size=20)
clips = st.builds(
    Clip,
    key=texts,
    captions=st.lists(texts, max_size=3).map(tuple),
    source=texts | st.none() | st.integers() | texts.map(lambda t: ("any", t)),
    label=texts | st.none(),
    caption_group=texts | st.none(),
)


@given(st.lists(clips, max_size=6))
def test_what_went_in_comes_out(items: list[Clip]) -> None:
    table = ClipTable(items)
    assert len(table) == len(items)
    assert list(table) == items == table and table[1:] == items[1:]
    assert list(reversed(table)) == items[::-1]
    assert pickle.loads(pickle.dumps(table)) == items


def test_what_a_list_does_it_does() -> None:
    items = [Clip(f"k{i}", ("a dog", "rain"), Path(f"{i}.wav")) for i in range(3)]
    table = ClipTable(items)
    assert table[-1] == items[-1] and items[1] in table and table.index(items[2]) == 2
    assert table != items[:2] and table != [*items[:2], Clip("k", ("x",), "y")]
    with pytest.raises(IndexError):
        table[3]


def test_a_row_is_its_text_and_little_more() -> None:
    caption = "a dog barks loudly while rain falls on a metal roof"
    tracemalloc.start()
    items = (Clip(f"a/{i:012d}", (caption,), f"/data/a/{i:012d}.wav") for i in range(20_000))
    table = ClipTable(items)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = len(caption) + 14 + 24
    assert size / len(table) < 1.5 * text + 32
