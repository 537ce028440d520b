from __future__ import annotations

import pytest

from atr_moco_plugin.data.opening.captions import (
    Captioned,
    CaptionTable,
    assign_keys,
)
from atr_moco_plugin.data.opening.split_names import split_in_name
from atr_moco_plugin.ids import caption_id, has_words


def add(table: CaptionTable, key: str, captions: list[str], **row: object) -> None:
    table.add(Captioned(key, tuple(captions), (f"Y{key}",)), row)


def test_rows_of_a_clip_are_grouped_wherever_they_are() -> None:
    table = CaptionTable()
    for number, key in enumerate("abab"):
        add(table, key, [f"caption {number}"], n=number)
    table.leave_out_without_caption()
    recordings = table.recordings
    assert list(recordings) == ["a", "b"]
    assert recordings["a"].captions == ("caption 0", "caption 2")
    assert recordings["a"].names == ("Ya",)


def test_equal_rows_count_once_and_equal_texts_of_two_rows_twice() -> None:
    table = CaptionTable()
    for row_id in ("1", "1", "2"):
        add(table, "a", ["a dog barks"], id=row_id, caption="a dog barks")
    assert table.repeated_rows == 1
    assert table.recordings["a"].captions == ("a dog barks", "a dog barks")


def test_captions_without_words_are_dropped_and_counted() -> None:
    table = CaptionTable()
    add(table, "a", ["", "a dog", "..."], n=1)
    add(table, "b", ["?", ""], n=2)
    add(table, "c", [""], n=3)
    add(table, "c", ["rain"], n=4)
    add(table, "c", ["\ufe0f", "\u200b\ufe0e", "\u0301"], n=5)
    table.leave_out_without_caption()
    assert table.empty_captions == 8
    assert table.without_caption == ("b",)
    assert {key: item.captions for key, item in table.recordings.items()} == {
        "a": ("a dog",),
        "c": ("rain",),
    }


def test_a_caption_of_5000_words_is_kept() -> None:
    table = CaptionTable()
    add(table, "a", ["word " * 5_000])
    assert len(table.recordings["a"].captions[0].split()) == 5_000


def ids(rows: list[tuple[str, str]]) -> dict[str, str]:
    """Identity to key, of rows of an id and a file."""
    table = CaptionTable()
    for number, (key, file) in enumerate(rows):
        table.add(Captioned(key, ("x",), (file,), identity=file), {"n": number})
    assign_keys({"train": table})
    return {identity: item.key for identity, item in table.recordings.items()}


def test_an_id_is_a_key_where_it_is_one_clips_and_joins_nothing() -> None:
    assert ids([("7", "a.wav"), ("8", "b.wav")]) == {"a.wav": "7", "b.wav": "8"}
    assert ids([("7", "a.wav"), ("7", "b.wav"), ("8", "c.wav")]) == {
        "a.wav": "a.wav", "b.wav": "b.wav", "c.wav": "8",
    }  # fmt: skip
    assert ids([("7", "a.wav"), ("8", "a.wav"), ("7", "a.wav")]) == {"a.wav": "a.wav"}


@pytest.mark.parametrize(
    "text",
    [
        "\ufe0f",
        "\u200b",
        "\u0301",
        "\u3164",
        "\U0001f415",
        "\u2602\ufe0f",
        "a",
        "7",
        "\u96e8",
        "caf\u00e9",
        "\u00e9",
        "'",
        "\u02bc",
        "...",
        "",
        " \t",
    ],
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
    assert split_in_name(text) == split
