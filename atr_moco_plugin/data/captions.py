"""What a captions file lists: recordings with their captions, grouped and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atr_moco_plugin.ids import normalize_caption

SPLITS = ("train", "valid", "test")
"""What splits are called in this package, in their order."""

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "development": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Names of splits on disk to those of :data:`SPLITS`."""

_LATIN_WORD = re.compile(r"[0-9A-Za-z]")


@dataclass(slots=True)
class Recording:
    """One clip as a captions file has it.

    Attributes:
        key: the clip's key.
        captions: at least one, none of them empty.
        names: names its audio may have, best first: file names, or stems without a suffix.
    """

    key: str
    captions: tuple[str, ...]
    names: tuple[str, ...]


@dataclass
class CaptionTable:
    """The recordings of one split; rows are added one by one.

    Attributes:
        recordings: by key, in the order of their first rows. After :meth:`finish` each has a
            caption.
        empty: captions without words, dropped.
        repeated: rows equal to an earlier one, dropped.
        bare: keys of recordings that were left out because no caption remained.
    """

    recordings: dict[str, Recording] = field(default_factory=dict)
    empty: int = 0
    repeated: int = 0
    bare: tuple[str, ...] = ()
    # Of whole rows, as numbers: the rows of a million clips would not be small.
    _seen: set[int] = field(default_factory=set, repr=False)

    def add(
        self, key: str, captions: Sequence[str], names: Sequence[str], row: Mapping[str, object]
    ) -> None:
        """Add a row's captions to its recording, which may have rows already, unless an equal row
        was added before.

        Two rows of a clip with the same text and different row ids (``audiocap_id``) are two
        captions: AudioCaps has them, where two people wrote the same.
        """
        mark = hash((key, *map(str, row.values())))
        if mark in self._seen:
            self.repeated += 1
            return
        self._seen.add(mark)
        kept = tuple(text for text in captions if has_words(text))
        self.empty += len(captions) - len(kept)
        known = self.recordings.get(key)
        if known is None:
            self.recordings[key] = Recording(key, kept, tuple(names))
            return
        known.captions += kept
        known.names += tuple(name for name in names if name not in known.names)

    def finish(self) -> CaptionTable:
        """Leave out the recordings without a caption, and return the table."""
        self.bare = tuple(key for key, item in self.recordings.items() if not item.captions)
        for key in self.bare:
            del self.recordings[key]
        self._seen.clear()
        return self


def has_words(text: str) -> bool:
    """Whether anything is left of a caption after normalisation, so that it has an id."""
    return bool(_LATIN_WORD.search(text) or normalize_caption(text))


def split_name(text: str) -> str | None:
    """The split a file's or folder's name speaks of: ``"train"``, ``"valid"`` or ``"test"``.

    Args:
        text: such as ``val``, ``audiocaps_train`` or ``clotho_captions_evaluation``.

    Returns:
        ``None`` if no split is named, or more than one.
    """
    words = re.split(r"[^a-z]+", text.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None
