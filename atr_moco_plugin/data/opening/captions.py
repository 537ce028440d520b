"""What a captions file lists: recordings with their captions, grouped and counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atr_moco_plugin.errors import InputError
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
    """One clip as a captions file has it: a piece of audio, with its captions.

    Attributes:
        key: the clip's key.
        captions: at least one, none of them empty.
        names: names its audio may have, best first: file names, or stems without a suffix.
        identity: what tells it from the other recordings. It is the key as well where another
            recording has the same ``key``.
        others: its names in further columns of audio, which must not be another file's.
        shared_names: those of ``names`` that do not tell it from others, such as those of another
            start in its video. :func:`finish` takes them out of ``names`` where there are others,
            and else empties this.
        copies: whether files of its name in several folders are copies of it, as of a video.
        segment: start and end in seconds where the clip is a part of its file.
        given: whether ``key`` is a ``clip_id`` of the captions file.
        source: the collection it comes from, where ids are numbers within one.
        place: the captions file.
        row: the recording's first row there, counted from 1.
        starts: values of columns that name a start without an end, or the place in a video, which
            are equal in all rows of a file.
    """

    key: str
    captions: tuple[str, ...]
    names: tuple[str, ...]
    identity: str = ""
    others: tuple[str, ...] = ()
    shared_names: tuple[str, ...] = ()
    copies: bool = False
    segment: tuple[float, float] | None = None
    given: bool = False
    source: str = ""
    place: str = ""
    row: int = 0
    starts: str = ""

    def __post_init__(self) -> None:
        self.identity = self.identity or self.key

    @property
    def where(self) -> str:
        """The captions file and the row, for messages."""
        return f"{self.place}: row {self.row}"


@dataclass
class CaptionTable:
    """The recordings of one split; rows are added one by one.

    Attributes:
        recordings: by identity, in the order of their first rows. After :func:`finish` each has a
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

    def add(self, item: Recording, row: Mapping[str, object]) -> None:
        """Add a row's captions to its recording, which may have rows already, unless an equal row
        was added before.

        Two rows of a clip with the same text and different row ids (``audiocap_id``) are two
        captions: AudioCaps has them, where two people wrote the same.

        Args:
            item: the recording as this row has it, with all of the row's captions.
            row: the row's columns.

        Raises:
            ValueError: if an earlier row of the recording gives it another ``clip_id``, or names
                another start.
        """
        mark = hash((item.identity, *map(str, row.values())))
        if mark in self._seen:
            self.repeated += 1
            return
        self._seen.add(mark)
        kept = tuple(text for text in item.captions if has_words(text))
        self.empty += len(item.captions) - len(kept)
        item.captions = kept
        known = self.recordings.setdefault(item.identity, item)
        if known is not item:
            join(known, item)

    def finish(self) -> CaptionTable:
        """Leave out the recordings without a caption, and return the table."""
        self.bare = tuple(item.key for item in self.recordings.values() if not item.captions)
        if self.bare:
            self.recordings = {k: item for k, item in self.recordings.items() if item.captions}
        self._seen.clear()
        return self


def join(known: Recording, item: Recording) -> None:
    """Add the captions and names of ``item`` to ``known``, which is the same audio.

    Raises:
        ValueError: if the two have different ``clip_id``, or name different starts.
    """
    if known.starts != item.starts:
        raise InputError(
            f"{item.where} and row {known.row} are of one file, {item.names[0]!r}, and name two "
            f"places in it ({item.starts or 'none'} and {known.starts or 'none'}) without start "
            "and end; give each row start and end, or start and duration, in seconds, or a file of "
            "its own"
        )
    if known.key != item.key:
        if known.given and item.given:
            raise InputError(
                f"{known.where} and {item.where} are of one file, {known.names[0]!r}, and have "
                f"the clip_id {known.key!r} and {item.key!r}; one file has one clip_id"
            )
        if item.given:
            known.key, known.given = item.key, True
        elif not known.given:
            # The same whichever row comes first.
            known.key = min(known.identity, item.identity, key=lambda text: (len(text), text))
    known.captions += item.captions
    known.names += tuple(name for name in item.names if name not in known.names)
    known.shared_names += item.shared_names
    if item.others:
        known.others += tuple(name for name in item.others if name not in known.others)


def finish(tables: Mapping[str, CaptionTable]) -> dict[str, CaptionTable]:
    """Settle the keys of a whole data set's recordings, and leave out those without a caption.

    Two recordings with the same ``key``, such as two starts in one video, get their identities as
    keys, and lose the names that fit both.
    """
    items = [item for table in tables.values() for item in table.recordings.values()]
    keys = _repeated((item.key, item.identity) for item in items)
    for item in items if keys else ():
        if item.key in keys and not item.given:
            item.key = item.identity
    named = [item for item in items if item.shared_names]
    names = _repeated((item.shared_names[0], item.identity) for item in named)
    for item in named:
        if item.shared_names[0] in names:
            item.names = tuple(n for n in item.names if n not in item.shared_names)
        else:
            item.shared_names = ()
    for table in tables.values():
        table.finish()
    return dict(tables)


def indistinct(item: Recording, name: str) -> InputError:
    """The error for a recording with others of its name, where only that name is there."""
    return InputError(
        f"{item.where}: a file {name!r} is there, which may be that of {item.key!r} or of another "
        f"of its name; name the files apart, such as {item.identity.rpartition('/')[2]!r}"
    )


def _repeated(pairs: Iterable[tuple[str, str]]) -> set[str]:
    """First halves that come with two second halves."""
    owners: dict[str, str] = {}
    return {first for first, second in pairs if owners.setdefault(first, second) != second}


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
