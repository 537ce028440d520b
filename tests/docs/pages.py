"""The pages of the guide, the code on them, and a way to run it as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A block of code: the word after its fence, the line of its first line, and its text."""

    language: str
    line: int
    text: str


def read(page: str) -> str:
    """The text of a page, by its path in the repository."""
    return (ROOT / page).read_text()


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, all or those of some languages, in their order."""
    text = read(page)
    fences = sum(line.startswith("```") for line in text.splitlines())
    assert fences % 2 == 0, f"{page} has a fence that is not closed"
    found = [
        Block(match[1], text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def files(page: str, *languages: str) -> dict[str, str]:
    """The blocks that begin with the name of a file as a comment, without that line."""
    named = {}
    for block in blocks(page, *languages):
        first, _, rest = block.text.partition("\n")
        if re.fullmatch(r"# [\w./]+\.\w+", first):
            named[first[2:]] = rest
    return named


def run_python(page: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the Python blocks of a page one after another, as a reader would.

    Args:
        page: its path in the repository.
        names: what the page takes as given.

    Returns:
        All names that are there at the end. An error shows the page and the line on it.
    """
    names = {"__name__": "page", **(names or {})}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec")
        exec(code, names)
    return names
