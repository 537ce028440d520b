"""The classes of a table in place of captions: which column names them, and their words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from atr_moco_plugin.data.opening.class_folders import words_of_name
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, caption_columns, cell_text
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_letters


def label_columns(where: str, rows: Iterable[Row]) -> list[str]:
    """The columns of labels that have a letter in some row, best first.

    Args:
        where: the table, for the message.
        rows: its rows, which are read as far as needed.

    Raises:
        InputError: if no label has one.
    """
    found: set[str] = set()
    example = ""
    for row in rows:
        there = [name for name in column_names.LABELS if name in row]
        found.update(name for name in there if label_texts(row[name]))
        if there and there[0] in found:
            break
        if there and not example:
            example = f"such as {row[there[0]]!r} in column {there[0]!r}"
    if example and not found:
        raise InputError(
            f"{where}: no label has a letter in it, {example}, so that there is nothing to say of "
            "its sounds: write the names of the classes, or a column caption"
        )
    return [name for name in column_names.LABELS if name in found]


def label_texts(value: object) -> list[str]:
    """The words of a label, or of each label in a list; none for one without a letter."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for item in values if has_letters(text := words_of_name(cell_text(item)))]


def with_label_as_caption(row: Row, columns: Sequence[str]) -> Row:
    """A row that has a label and no captions, with the label's words as its caption.

    Args:
        row: the row.
        columns: those of :func:`label_columns`.
    """
    if caption_columns(tuple(row)):
        return row
    label = next((name for name in (*columns, *column_names.LABELS) if name in row), None)
    return row if label is None else {**row, "caption": label_texts(row[label]) or ""}
