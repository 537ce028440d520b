"""Tables as titles and cells, and how they look in a terminal and in Markdown.

The page of a run shows the same tables through its template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: column titles; the first is the title of the row names.
        rows: one cell for each title.
        caption: what the table shows.
        groups: titles over several columns, each with its number of columns. The first is over the
            row names and empty.
        notes: lines below the table.

    Raises:
        ValueError: when a row has another number of cells than the header.

    Example:
        >>> print(Table(["name", "R@1"], [["ours", "9.5"]]).text())
        name  R@1
        ----  ---
        ours  9.5
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"Row {list(row)} has {len(row)} cells, the header {len(self.header)}."
                )

    def text(self) -> str:
        """The table for a terminal, in ASCII: row names flush left, all other cells flush right.

        A group's title stands over its first column. The caption is left out.
        """
        widths = _widths(self.header, *self.rows)
        rule = ["-" * width for width in widths]
        lines = [
            "  ".join(_aligned(row, widths)).rstrip() for row in (self.header, rule, *self.rows)
        ]
        if self.groups:
            lines.insert(0, self._group_line(widths))
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines).replace("–", "-")

    def markdown(self) -> str:
        """The table in Markdown; a column of a group has the group's title in its own."""
        groups = [name for name, span in self.groups for _ in range(span)] or [""] * len(
            self.header
        )
        header = [
            f"{title} {group}".strip() for title, group in zip(self.header, groups, strict=True)
        ]
        rows = [[cell.replace("*", "\\*") for cell in row] for row in self.rows]
        widths = _widths(header, *rows)
        rule = [
            "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
        ]
        lines = [f"| {' | '.join(_aligned(row, widths))} |" for row in (header, rule, *rows)]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)

    def _group_line(self, widths: Sequence[int]) -> str:
        line = ""
        starts = accumulate((span for _, span in self.groups), initial=0)
        for (name, _), column in zip(self.groups, starts, strict=False):
            if name:
                title_ends = sum(widths[: column + 1]) + 2 * column
                line = line.ljust(title_ends - len(self.header[column])) + name.replace("→", "->")
        return line


def _widths(*rows: Sequence[str]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if i else cell.ljust(width)
