"""From the rows of captions files and the files found for them to clips: one for each piece of
audio."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from atr_moco_plugin.data.audio.source import Segment, Source
from atr_moco_plugin.data.opening.captions import CaptionTable, Recording, join
from atr_moco_plugin.data.opening.duplicates import equal_sources, look_up, repeated, same_file
from atr_moco_plugin.errors import InputError

_NAMED = 3


@dataclass(slots=True)
class Found:
    """A clip whose audio was found.

    Attributes:
        split: the split it is in.
        source: its audio.
        item: what the captions file says of it, where there is one.
        mark: equal for two clips that may be in one file, see :func:`~.duplicates.look_up`.
        size: of its file or of its part of one, in bytes.
        part: its first sample and one after the last in its file, where they are known.
    """

    split: str
    source: Source
    item: Recording | None = None
    mark: int = 0
    size: int = 0
    part: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        """The path of its file."""
        return self.source.path if isinstance(self.source, Segment) else str(self.source)

    def __str__(self) -> str:
        row = f", row {self.item.row}" if self.item is not None and self.item.row else ""
        return f"{self.source} ({self.split!r}{row})"


def join_recordings(
    tables: Mapping[str, CaptionTable], sources: Mapping[str, Sequence[str | None]]
) -> list[Found]:
    """Join the recordings of a split that are one file, or the same segment of one, and those of
    one ``clip_id``.

    Args:
        tables: split to its recordings.
        sources: split to the path of each, ``None`` where no file was found; such are left out.

    Returns:
        The recordings with their audio, split by split, in the order of their first rows.

    Raises:
        ValueError: if a file has two ``clip_id``, or a ``clip_id`` has two files that differ.
    """
    found: list[Found] = []
    for split, table in tables.items():
        for item, path in zip(table.recordings.values(), sources[split], strict=True):
            if path is not None:
                part = item.segment
                found.append(Found(split, path if part is None else Segment(path, *part), item))
    return _join_ids(_join_files(with_marks(found)))


def with_marks(found: list[Found]) -> list[Found]:
    """The same, each with its :attr:`~Found.mark` and :attr:`~Found.size`."""
    for clip, mark, size in zip(found, *look_up([clip.source for clip in found]), strict=True):
        clip.mark, clip.size = mark, size
    return found


def _join_files(found: list[Found]) -> list[Found]:
    known: dict[object, Found] = {}
    gone: set[int] = set()
    for at in repeated([clip.mark for clip in found]):
        clip = found[at]
        first = known.setdefault((clip.split, same_file(clip.source), clip.item.segment), clip)
        if first is not clip:
            join(first.item, clip.item)
            gone.add(at)
    return [clip for at, clip in enumerate(found) if at not in gone] if gone else found


def _join_ids(found: list[Found]) -> list[Found]:
    groups: dict[str, list[Found]] = defaultdict(list)
    for clip in found:
        if clip.item.given:
            groups[clip.item.key].append(clip)
    gone: set[int] = set()
    for key, (first, *others) in groups.items():
        for clip in others:
            alike = first.item.segment == clip.item.segment
            if not alike or not _equal([first, clip], silence=True):
                raise InputError(
                    f"{first.item.where} and row {clip.item.row} have the clip_id {key!r} and "
                    f"different audio, {first.source} and {clip.source}; one clip_id is one "
                    "recording: give each its own, or rename the column"
                )
            join(first.item, clip.item)
            gone.add(id(clip))
    return [clip for clip in found if id(clip) not in gone] if gone else found


def check_shared(
    name: str, found: Sequence[Found], *, allow: bool, contents: bool
) -> tuple[Counter[str], Counter[str]]:
    """Refuse recordings that are in two splits, and warn of those that are twice in one.

    Args:
        name: of the data set, for messages.
        found: all clips.
        allow: count recordings in two splits instead.
        contents: compare files by their bytes as well, else by the file system alone.

    Returns:
        By split the number of clips whose audio is in another split too, and of clips whose audio
        an earlier clip of the split has.

    Raises:
        ValueError: if a recording is in two splits and that is not allowed.
    """
    shared: Counter[str] = Counter()
    same: Counter[str] = Counter()
    across: list[str] = []
    twice: list[str] = []
    for group in _one_recording(found, contents):
        splits = {clip.split: clip for clip in group}
        if len(splits) > 1:
            shared.update(clip.split for clip in group)
            one, two, *_ = splits.values()
            across.append(f"{one} and {two}")
        first: dict[object, Found] = {}
        for clip in group:
            part = clip.part or (clip.item.segment if clip.item is not None else None)
            known = first.setdefault((clip.split, part), clip)
            if known is not clip:
                same[clip.split] += 1
                twice.append(f"{known} and {clip}")
    if across and not allow:
        raise InputError(
            f"{name}: {len(across):,} recordings are in two splits: {_few(across)}; leave each out "
            "of one of them, or set allow_shared_audio: true"
        )
    if twice:
        warnings.warn(
            f"{name}: {len(twice):,} clips have the same audio as another of their split: "
            f"{_few(twice)}; where they are one recording, give both files' rows one clip_id (and "
            "the same part) or leave one out",
            stacklevel=4,
        )
    return shared, same


def _one_recording(found: Sequence[Found], contents: bool) -> list[list[Found]]:
    """Clips of one file or of equal files, in groups of at least two."""
    groups: dict[object, list[Found]] = defaultdict(list)
    alone = [True] * len(found)
    for at in repeated([clip.mark for clip in found]):
        groups[same_file(found[at].source)].append(found[at])
        alone[at] = False
    linked = list(groups.values())
    if not contents:
        return [group for group in linked if len(group) > 1]
    firsts = [group[0] for group in linked]
    firsts += [clip for clip, is_alone in zip(found, alone, strict=True) if is_alone]
    merged: list[list[Found]] = []
    taken: set[int] = set()
    for equal in _equal(firsts):
        groups_of = (linked[at] if at < len(linked) else [firsts[at]] for at in equal)
        merged.append(list(chain.from_iterable(groups_of)))
        taken.update(equal)
    return merged + [g for at, g in enumerate(linked) if at not in taken and len(g) > 1]


def _equal(clips: Sequence[Found], *, silence: bool = False) -> list[list[int]]:
    sizes = [clip.size for clip in clips]
    return equal_sources([clip.source for clip in clips], sizes, silence=silence)


def _few(items: Iterable[str]) -> str:
    shown = list(items)
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
