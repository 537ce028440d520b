"""The recording that rows of a table say their clip is a part of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, cell_text
from atr_moco_plugin.errors import InputError


def said_recordings(row: Row) -> dict[str, str]:
    """The columns of :data:`~.column_names.RECORDINGS` that a row fills, and what it has there."""
    said = {name: cell_text(row.get(name)) for name in column_names.RECORDINGS if name in row}
    return {name: text for name, text in said.items() if text}


def recording_of_rows(key: str, rows: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """The recording of a clip: what its first row has in the first column that it fills.

    Args:
        key: of the clip, for messages.
        rows: its rows that say one, at least one, in order: where each is, and what it says.

    Raises:
        InputError: if two rows say different things in one column.
    """
    first: dict[str, tuple[str, str]] = {}
    for where, said in rows:
        for name, text in said.items():
            before, other = first.setdefault(name, (where, text))
            if other != text:
                raise InputError(
                    f"{before} and {where} are of one clip, {key!r}, and have the {name} {other!r} "
                    f"and {text!r}; keep one of them"
                )
    name, text = next(iter(rows[0][1].items()))
    return f"{name} {text}"
