"""What a user has written in a bundle's card, where the bundle is written anew."""

from __future__ import annotations

import shutil
import warnings
from itertools import count
from pathlib import Path

CARD, OLD_CARDS = "README.md", "README.old*.md"
"""The card of a bundle, and those of bundles before, where a user had written in them."""

PLACE = "To be filled in"
"""Stands in a card where a user has to say what the package does not know: twice."""

_HEADINGS = ["## What it is", "## Figures", "## Licence", "## Citation"]


def read_card(folder: Path) -> str:
    """The text of a bundle's card, which a user may have written in any encoding: what is not UTF-8
    becomes U+FFFD. Empty where there is none."""
    file = folder / CARD
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def keep_card(folder: Path, new: Path, card: str) -> None:
    """Keep a card in which a user has written licence, citation or a section, for that is nowhere
    else.

    Args:
        folder: of the bundle that ``new`` replaces; there may be none.
        new: folder to which what is kept goes as ``README.old.md``, or a name with a number where
            that is there, with a warning.
        card: the text of the new one.
    """
    for old in old_cards(folder):
        shutil.copyfile(old, new / old.name)
    there = folder / CARD
    content = there.read_bytes() if there.is_file() else b""
    if content in (b"", card.encode()) or _is_untouched(read_card(folder)):
        return
    names = (f"README.old{number or ''}.md" for number in count())
    name = next(name for name in names if not (new / name).exists())
    (new / name).write_bytes(content)
    warnings.warn(
        f"{there} had been filled in: it is {name} now, beside the new bundle's own. Take over "
        "what holds.",
        stacklevel=4,
    )


def old_cards(folder: Path) -> list[Path]:
    """The cards of earlier bundles that are kept in a folder."""
    return sorted(folder.glob(OLD_CARDS))


def _is_untouched(card: str) -> bool:
    """Whether nobody has written in the text of a card since the package made it, by its
    headings and by the places that are to be filled in."""
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    return headings == _HEADINGS and card.count(PLACE) == 2 and "license: unknown" in card
