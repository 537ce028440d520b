"""What a user has written in a bundle's card, where the bundle is written anew."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from itertools import count
from pathlib import Path

from atr_moco_plugin.io.json_files import object_if_whole

CARD, OLD_CARDS = "README.md", "README.old*.md"
"""The card of a bundle, and those of bundles before, where a user had written in them."""

PLACE = "To be filled in"
"""Stands in a card where a user has to say what the package does not know: twice."""

_RECORD = "card_sha256"
"""In ``origin`` of ``config.json``: of the card as the package wrote it."""


def card_record(card: str) -> dict[str, str]:
    """What ``origin`` of a bundle keeps of a card that the package has made, so that one in which a
    user has written is known."""
    lines = "\n".join(card.splitlines())  # a checkout may change how they end
    return {_RECORD: hashlib.sha256(lines.encode()).hexdigest()}


def read_card(folder: Path) -> str:
    """The text of a bundle's card, which a user may have written in any encoding: what is not UTF-8
    becomes U+FFFD. Empty where there is none."""
    file = folder / CARD
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def keep_card(folder: Path, new: Path, card: str) -> None:
    """Keep a card that is not as the package wrote it, for what a user has written is nowhere else.
    A bundle of before does not say what was written: its card is kept.

    Args:
        folder: of the bundle that ``new`` replaces; there may be none.
        new: folder to which what is kept goes as ``README.old.md``, or a name with a number where
            that is there, with a warning.
        card: the text of the new one.
    """
    for old in old_cards(folder):
        shutil.copyfile(old, new / old.name)
    there = folder / CARD
    origin = object_if_whole(folder / "config.json").get("origin")
    written = origin.get(_RECORD) if isinstance(origin, dict) else None
    content = there.read_bytes() if there.is_file() else b""
    if content in (b"", card.encode()) or card_record(read_card(folder))[_RECORD] == written:
        return
    names = (f"README.old{number or ''}.md" for number in count())
    name = next(name for name in names if not (new / name).exists())
    (new / name).write_bytes(content)
    warnings.warn(
        f"{there} may have been filled in: it is {name} now, beside the new bundle's own. Take "
        "over what holds.",
        stacklevel=4,
    )


def old_cards(folder: Path) -> list[Path]:
    """The cards of earlier bundles that are kept in a folder."""
    return sorted(folder.glob(OLD_CARDS))
