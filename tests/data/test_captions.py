from __future__ import annotations

import pytest

from atr_moco_plugin.data.captions import CaptionTable, has_words, split_name
from atr_moco_plugin.ids import caption_id


def test_rows_of_a_clip_are_grouped_wherever_they_are() -> None:
    table = CaptionTable()
    for number, key in enumerate("abab"):
        table.add(key, [f"caption {number}"], [f"Y{key}"], {"n": number})
    recordings = table.finish().recordings
    assert list(recordings) == ["a", "b"]
    assert recordings["a"].captions == ("caption 0", "caption 2")
    assert recordings["a"].names == ("Ya",)


def test_equal_rows_count_once_and_equal_texts_of_two_rows_twice() -> None:
    table = CaptionTable()
    for row_id in ("1", "1", "2"):
        table.add("a", ["a dog barks"], ["a"], {"id": row_id, "caption": "a dog barks"})
    assert table.finish().repeated == 1
    assert table.recordings["a"].captions == ("a dog barks", "a dog barks")


def test_captions_without_words_are_dropped_and_counted() -> None:
    table = CaptionTable()
    table.add("a", ["", "a dog", "..."], ["a"], {"n": 1})
    table.add("b", ["?", ""], ["b"], {"n": 2})
    table.add("c", [""], ["c"], {"n": 3})
    table.add("c", ["rain"], ["c"], {"n": 4})
    table.add("c", ["\ufe0f", "\u200b\ufe0e", "\u0301"], ["c"], {"n": 5})
    assert table.finish().empty == 8
    assert table.bare == ("b",)
    assert {key: item.captions for key, item in table.recordings.items()} == {
        "a": ("a dog",),
        "c": ("rain",),
    }


def test_a_caption_of_5000_words_is_kept() -> None:
    table = CaptionTable()
    table.add("a", ["word " * 5_000], ["a"], {})
    assert len(table.finish().recordings["a"].captions[0].split()) == 5_000


@pytest.mark.parametrize(
    "text",
    ["\ufe0f", "\u200b", "\u0301", "\u3164", "\U0001f415", "\u2602\ufe0f", "a", "7", "\u96e8", "caf\u00e9", "\u00e9", "'", "\u02bc", "...", "", " \t"]
)
def test_words_are_what_has_a_caption_id(text: str) -> None:
    if has_words(text):
        assert caption_id(text)
    else:
        with pytest.raises(ValueError, match="has no letters or digits"):
            caption_id(text)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        ("audiocaps_train", "train"),
        ("clotho_captions_development", "train"),
        ("val", "valid"),
        ("valid", "valid"),
        ("Validation", "valid"),
        ("clotho-captions-evaluation", "test"),
        ("test_957", "test"),
        ("training", "train"),
        ("train_val", None),
        ("trainsounds", None),
        ("captions", None),
    ],
)
def test_split_names(text: str, split: str | None) -> None:
    assert split_name(text) == split
