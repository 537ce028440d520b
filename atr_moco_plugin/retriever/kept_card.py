"""What a user has written in a bundle's card, where the bundle is written anew."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

CARD, OLD_CARD = "README.md", "README.old.md"
"""The card of a bundle, and that of the bundle before, where a user had written in it."""

PLACE = "To be filled in"
"""Stands in a card where a user has to say what the package does not know: twice."""

_HEADINGS = ["## What it is", "## Figures", "## Licence", "## Citation"]


def keep_card(folder: Path, new: Path, card: str) -> None:
    """Keep what a user has written in a bundle's card, for it is nowhere else.

    Args:
        folder: of the bundle that ``new`` replaces; there may be none.
        new: folder to which what is kept goes as ``README.old.md``, with a warning.
        card: the text of the new one.
    """
    there, old = folder / CARD, folder / OLD_CARD
    if old.is_file():
        shutil.copyfile(old, new / OLD_CARD)
    content = there.read_bytes() if there.is_file() else b""
    text = content.decode("utf-8", "replace")
    if text in ("", card) or _is_untouched(text):
        return
    (new / OLD_CARD).write_bytes(content)
    warnings.warn(
        f"{there} had been filled in: it is {OLD_CARD} now, beside the new bundle's own. Take "
        "over what holds.",
        stacklevel=4,
    )


def _is_untouched(card: str) -> bool:
    """Whether nobody has written in the text of a card since the package made it, by its
    headings and by the places that are to be filled in."""
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    return headings == _HEADINGS and card.count(PLACE) == 2 and "license: unknown" in card
