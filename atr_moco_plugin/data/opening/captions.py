"""What a captions file lists: recordings with their captions, grouped and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.errors import InputError
from atr_moco_plugin.ids import has_words


@dataclass(slots=True)
class Captioned:
    """One clip as a captions file has it: a piece of audio with its captions.

    Attributes:
        key: the clip's key.
        captions: texts, none of them without words once the recording is in a table.
        names: names that its audio may have, best first: file names, or stems without a suffix.
        file: the captions file.
        row: the recording's first row there, counted from 1.
        identity: tells the recording from all others. It becomes the key where another recording
            has the same ``key``.
        other_names: names in further audio columns, which must not belong to another file.
        shared_names: names that other recordings may have too, such as the bare id of a video with
            two clips. :func:`assign_keys` takes them out of ``names`` where that is so, and empties
            this field where it is not.
        copies: whether equal names in several folders are copies of one file, as for a video.
        segment: start and end in seconds where the clip is a part of its file.
        has_clip_id: whether ``key`` is a ``clip_id`` of the captions file.
        collection: where the recording comes from, if ids are unique only within a collection.
        place_note: the columns that name a start without an end, or the place in a video, in words.
            It is equal in all rows of one recording.
        path: the audio file on disk, ``None`` as long as none was found.
        later_rows: the recording's further rows in the captions file.
    """

    key: str
    captions: tuple[str, ...]
    names: tuple[str, ...]
    file: str = ""
    row: int = 0
    identity: str = ""
    other_names: tuple[str, ...] = ()
    shared_names: tuple[str, ...] = ()
    copies: bool = False
    segment: tuple[float, float] | None = None
    has_clip_id: bool = False
    collection: str = ""
    place_note: str = ""
    path: str | None = None
    later_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.identity = self.identity or self.key

    @property
    def source(self) -> str | Segment | None:
        """Its file, or its part of one; ``None`` as long as none was found."""
        if self.path is None or self.segment is None:
            return self.path
        return Segment(self.path, *self.segment)

    @property
    def where(self) -> str:
        """The captions file and the row, for messages."""
        return f"{self.file}: row {self.row}"

    def merge(self, other: Captioned) -> None:
        """Take over the captions and names of another recording that has the same audio.

        Raises:
            InputError: if the two have different ``clip_id``, or name different starts.
        """
        if self.place_note != other.place_note:
            raise InputError(
                f"{other.where} and row {self.row} are of one file, {other.names[0]!r}, and name "
                f"two places in it ({other.place_note or 'none'} and {self.place_note or 'none'}) "
                "without start and end; give each row start and end, or start and duration, in "
                "seconds, or a file of its own"
            )
        if self.key != other.key:
            if self.has_clip_id and other.has_clip_id:
                raise InputError(
                    f"{self.where} and {other.where} are of one file, {self.names[0]!r}, and have "
                    f"the clip_id {self.key!r} and {other.key!r}; one file has one clip_id"
                )
            if other.has_clip_id:
                self.key, self.has_clip_id = other.key, True
            elif not self.has_clip_id:
                # The same whichever row comes first.
                self.key = min(self.identity, other.identity, key=lambda text: (len(text), text))
        self.captions += other.captions
        self.later_rows += (other.row, *other.later_rows)
        self.names += tuple(name for name in other.names if name not in self.names)
        self.shared_names += other.shared_names
        self.other_names += tuple(n for n in other.other_names if n not in self.other_names)


@dataclass
class CaptionTable:
    """The recordings of one split; rows are added one by one.

    Attributes:
        recordings: by identity, in the order of their first rows. After :func:`assign_keys` each
            has a caption.
        empty_captions: captions without words, dropped.
        repeated_rows: rows equal to an earlier one, dropped.
        without_caption: keys of recordings that were left out because no caption remained.
    """

    recordings: dict[str, Captioned] = field(default_factory=dict)
    empty_captions: int = 0
    repeated_rows: int = 0
    without_caption: tuple[str, ...] = ()
    # Hashes of whole rows: the rows of a million clips would need much memory.
    _seen: set[int] = field(default_factory=set, repr=False)

    def add(self, item: Captioned, row: Mapping[str, object]) -> None:
        """Add a row's captions to its recording, which may have rows already. A row equal to an
        earlier one is dropped.

        Two rows of a clip with the same text and different row ids (``audiocap_id``) are two
        captions: AudioCaps has them, where two people wrote the same.

        Args:
            item: the recording as this row has it, with all of the row's captions.
            row: the row's columns.

        Raises:
            InputError: if an earlier row of the recording gives it another ``clip_id``, or names
                another start.
        """
        mark = hash((item.identity, *map(str, row.values())))
        if mark in self._seen:
            self.repeated_rows += 1
            return
        self._seen.add(mark)
        kept = tuple(text for text in item.captions if has_words(text))
        self.empty_captions += len(item.captions) - len(kept)
        item.captions = kept
        known = self.recordings.setdefault(item.identity, item)
        if known is not item:
            known.merge(item)

    def leave_out_without_caption(self) -> None:
        """Leave out the recordings without a caption, when all rows have been added."""
        items = self.recordings
        without = tuple(item.key for item in items.values() if not item.captions)
        if without:
            self.recordings = {k: item for k, item in items.items() if item.captions}
        self.without_caption += without
        self._seen.clear()


def assign_keys(tables: Mapping[str, CaptionTable]) -> None:
    """Make the keys of all recordings of a data set unique, and leave out those without a caption.

    Two recordings with the same ``key``, such as two starts in one video, get their identities as
    keys, and lose the names that fit both.

    Args:
        tables: split to its recordings, changed in place.
    """
    items = [item for table in tables.values() for item in table.recordings.values()]
    keys = _with_several((item.key, item.identity) for item in items)
    for item in items if keys else ():
        if item.key in keys and not item.has_clip_id:
            item.key = item.identity
    named = [item for item in items if item.shared_names]
    names = _with_several((item.shared_names[0], item.identity) for item in named)
    for item in named:
        if item.shared_names[0] in names:
            item.names = tuple(n for n in item.names if n not in item.shared_names)
        else:
            item.shared_names = ()
    for table in tables.values():
        table.leave_out_without_caption()


def _with_several(pairs: Iterable[tuple[str, str]]) -> set[str]:
    """First halves that come with two second halves."""
    owners: dict[str, str] = {}
    return {first for first, second in pairs if owners.setdefault(first, second) != second}
