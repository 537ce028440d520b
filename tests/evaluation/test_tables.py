"""Tables as text for a terminal and as Markdown."""

from __future__ import annotations

import pytest

from atr_moco_plugin.evaluation import Table


def test_columns_align() -> None:
    table = Table(["name", "x"], [["a", "1.0"], ["longer", "100.0"]]).text()
    assert table.splitlines() == [
        "name        x",
        "------  -----",
        "a         1.0",
        "longer  100.0",
    ]


def test_markdown() -> None:
    table = Table(["name", "x"], [["a", "1.0"]]).markdown()
    assert table.splitlines() == ["| name |   x |", "| ---- | --: |", "| a    | 1.0 |"]


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 cells, the header 2"):
        Table(["a", "b"], [["1", "2", "3"]])


GROUPED = Table(
    ["", "R@1", "R@5", "R@1", "R@5"],
    [["ours", "100.0", "–", "2*", "3.0"]],
    groups=[("", 1), ("audio → text", 2), ("text → audio", 2)],
    notes=["A note."],
)


def test_a_terminal_shows_groups_over_their_first_titles_and_ascii_alone() -> None:
    lines = (
        Table(
            GROUPED.header, [["name", "1.0", "–", "2.0", "3.0"], *GROUPED.rows], "", GROUPED.groups
        )
        .text()
        .splitlines()
    )
    assert lines[0].index("audio -> text") == lines[1].index("R@1")
    assert lines[0].index("text -> audio") >= lines[1].rindex("R@1")
    assert GROUPED.text().isascii() and GROUPED.text().endswith("\n\nA note.")


def test_markdown_names_the_group_in_each_title_and_escapes_stars() -> None:
    text = GROUPED.markdown()
    assert "R@1 audio → text" in text and "R@5 text → audio" in text
    assert "2\\*" in text and text.endswith("\n\n- A note.")
    assert len({line.count("|") for line in text.splitlines()[:3]}) == 1
