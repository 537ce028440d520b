"""The columns of a table that name the split of a row."""

from __future__ import annotations

import os
import warnings
from collections import Counter

from atr_moco_plugin.data.opening.split_names import SPLIT_NAMES, SPLITS
from atr_moco_plugin.data.tables import column_names
from atr_moco_plugin.data.tables.columns import Row, cell_text
from atr_moco_plugin.errors import InputError, listed


def check_split_of_table(where: str, row: Row, split: str) -> None:
    """Refuse a row that names another split than its table does.

    Args:
        where: the table and the row, for the message.
        row: the row.
        split: the table's, by its name.
    """
    for column in column_names.SPLITS:
        text = cell_text(row.get(column))
        if split in SPLITS and SPLIT_NAMES.get(text.lower(), split) != split:
            raise InputError(
                f"{where} is of the split {text!r} by its column {column!r}, and of {split!r} by "
                "the name of its table: correct the row, rename the table, or remove the column"
            )


class SplitColumns:
    """The splits of a table's rows, and what looks wrong about them.

    Args:
        path: the table, for messages.
        default: the split of rows that name none.
    """

    def __init__(self, path: str | os.PathLike[str], default: str) -> None:
        self._path = os.fspath(path)
        self._default = default
        self._other_rows: Counter[str] = Counter()  # of splits that nothing uses by itself
        # Columns that are not read, to the splits that they name in all rows so far.
        self._unread: dict[str, set[str]] | None = None
        self._known: dict[tuple[object, ...], str] = {}  # most rows name a split that others named

    def of_row(self, row: Row, number: int) -> str:
        """The split of the row of that number."""
        values = tuple(row.get(name) for name in column_names.SPLITS)
        key = tuple(map(repr, values))
        if key not in self._known:
            self._known[key] = self._named_in(values, number)
        split = self._known[key]
        if split and split not in SPLITS:
            self._other_rows[split] += 1
        if self._unread is None:
            given = any(name in row for name in column_names.SPLITS)
            self._unread = {} if given else {column: set() for column in row}
        for column in list(self._unread):
            value = row.get(column)
            name = value.strip().lower() if isinstance(value, str) else ""
            if name in SPLIT_NAMES:
                self._unread[column].add(SPLIT_NAMES[name])
            else:
                del self._unread[column]
        return split or self._default

    def _named_in(self, values: tuple[object, ...], number: int) -> str:
        names = [name for value in values if (name := cell_text(value))]
        found = [SPLIT_NAMES.get(name.lower(), name) for name in names]
        if len(set(found) & set(SPLITS)) > 1:
            raise InputError(
                f"{self._path}: row {number} is of the split {names[0]!r} and of the subset "
                f"{names[1]!r}; keep one of the two columns"
            )
        return found[0] if found else ""

    def warn(self) -> None:
        """Warn of splits that nothing uses, and of columns that name splits and are not read."""
        if self._other_rows:
            most_common = [f"{n[:40]!r} ({k:,})" for n, k in self._other_rows.most_common()]
            warnings.warn(
                f"{self._path}: rows of the splits {listed(most_common, 5)} are neither trained on "
                "nor evaluated unless an option names their split; if they are misspelled, write "
                f"{', '.join(SPLITS)}",
                stacklevel=4,
            )
        for column, names in (self._unread or {}).items():
            if len(names) > 1:
                warnings.warn(
                    f"{self._path}: column {column!r} has names of splits and is not read, so that "
                    f"all rows are {self._default}; call it split",
                    stacklevel=4,
                )
