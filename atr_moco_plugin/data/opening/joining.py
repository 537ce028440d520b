"""From recordings and the files found for them to clips: one clip for each piece of audio."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.data.clips import Clip
from atr_moco_plugin.data.opening.captions import Captioned, CaptionTable
from atr_moco_plugin.data.opening.duplicates import (
    FileSource,
    equal_sources,
    same_files,
)
from atr_moco_plugin.errors import InputError, listed


@dataclass(slots=True)
class LocatedAudio:
    """The audio of one clip.

    Attributes:
        split: the split it is in.
        source: where its bytes are.
        row: the row of its captions file, for messages; 0 where there is none.
        part: tells it from other clips in its file: the segment in seconds, or the first sample and
            one after the last where the header was read. ``None`` where neither is known.
    """

    split: str
    source: FileSource
    row: int = 0
    part: tuple[float, float] | None = None

    @property
    def path(self) -> str:
        """The path of its file."""
        return self.source.path if isinstance(self.source, Segment) else str(self.source)

    def __str__(self) -> str:
        return f"{self.source} ({self.split!r}{f', row {self.row}' if self.row else ''})"


@dataclass(slots=True, kw_only=True)
class LocatedRecording(LocatedAudio):
    """The audio of one clip, and what the captions file says of it.

    Attributes:
        recording: what the captions file says.
        seconds: what its header says, where that was read.
    """

    recording: Captioned
    seconds: float | None = None


def join_recordings(tables: Mapping[str, CaptionTable]) -> list[LocatedRecording]:
    """Join the recordings of a split that are one file or the same segment of one file, and the
    recordings with one ``clip_id``.

    Args:
        tables: split to its recordings; recordings without a path are left out.

    Returns:
        The recordings with their audio, split by split, in the order of their first rows.

    Raises:
        InputError: if a file has two ``clip_id``, or a ``clip_id`` has two files that differ.
    """
    found: list[LocatedRecording] = []
    for split, table in tables.items():
        for item in table.recordings.values():
            if (source := item.source) is not None:
                found.append(
                    LocatedRecording(split, source, row=item.row, part=item.segment, recording=item)
                )
    return _join_clip_ids(_join_files(found))


def check_shared_clips(
    name: str, splits: Mapping[str, Sequence[Clip]], *, allow: bool
) -> tuple[Counter[str], Counter[str]]:
    """:func:`check_shared` for clips that come from no captions file, by their contents."""
    audio = [LocatedAudio(split, clip.source) for split in splits for clip in splits[split]]
    return check_shared(name, audio, allow=allow, contents=True)


def check_shared(
    name: str, audio: Sequence[LocatedAudio], *, allow: bool, contents: bool
) -> tuple[Counter[str], Counter[str]]:
    """Refuse recordings that are in two splits, and warn of recordings that are twice in one.

    Args:
        name: of the data set, for messages.
        audio: that of all clips.
        allow: count recordings in two splits instead.
        contents: compare files by their bytes as well, else by the file system alone.

    Returns:
        By split the number of clips whose audio is in another split too, and of clips whose audio
        an earlier clip of the split has.

    Raises:
        InputError: if a recording is in two splits and that is not allowed.
    """
    shared: Counter[str] = Counter()
    same: Counter[str] = Counter()
    across: list[str] = []
    twice: list[str] = []
    for group in _in_one_recording(audio, contents):
        splits = {clip.split: clip for clip in group}
        if len(splits) > 1:
            shared.update(clip.split for clip in group)
            one, two, *_ = splits.values()
            across.append(f"{one} and {two}")
        first: dict[object, LocatedAudio] = {}
        for clip in group:
            known = first.setdefault((clip.split, clip.part), clip)
            if known is not clip:
                same[clip.split] += 1
                twice.append(f"{known} and {clip}")
    if across and not allow:
        raise InputError(
            f"{name}: {len(across):,} recordings are in two splits: {listed(across)}; leave each "
            "out of one of them, or set allow_shared_audio: true"
        )
    if twice:
        warnings.warn(
            f"{name}: {len(twice):,} clips have the same audio as another of their split: "
            f"{listed(twice)}; where they are one recording, give both files' rows one clip_id "
            "(and the same part) or leave one out",
            stacklevel=4,
        )
    return shared, same


def _join_files(found: list[LocatedRecording]) -> list[LocatedRecording]:
    joined: set[int] = set()
    for group in same_files([clip.source for clip in found]):
        known: dict[object, LocatedRecording] = {}
        for at in group:
            clip = found[at]
            first = known.setdefault((clip.split, clip.part), clip)
            if first is not clip:
                first.recording.merge(clip.recording)
                joined.add(at)
    return [clip for at, clip in enumerate(found) if at not in joined]


def _join_clip_ids(found: list[LocatedRecording]) -> list[LocatedRecording]:
    groups: dict[str, list[LocatedRecording]] = defaultdict(list)
    for clip in found:
        if clip.recording.has_clip_id:
            groups[clip.recording.key].append(clip)
    joined: set[int] = set()
    for key, (first, *others) in groups.items():
        for clip in others:
            if first.part != clip.part or not equal_sources(
                [first.source, clip.source], silence=True
            ):
                raise InputError(
                    f"{first.recording.where} and row {clip.row} have the clip_id {key!r} and "
                    f"different audio, {first.source} and {clip.source}; one clip_id is one "
                    "recording: give each its own, or rename the column"
                )
            first.recording.merge(clip.recording)
            joined.add(id(clip))
    return [clip for clip in found if id(clip) not in joined]


def _in_one_recording(audio: Sequence[LocatedAudio], contents: bool) -> list[list[LocatedAudio]]:
    """Clips of one file or of equal files, in groups of at least two."""
    groups = same_files([clip.source for clip in audio])
    if contents:
        # The first clip of each file stands for the others, which equal files then bring along.
        group_of = {group[0]: group for group in groups}
        others = set(chain.from_iterable(group[1:] for group in groups))
        firsts = [at for at in range(len(audio)) if at not in others]
        equal_files = [
            list(chain.from_iterable(group_of.pop(firsts[k], [firsts[k]]) for k in equal))
            for equal in equal_sources([audio[at].source for at in firsts])
        ]
        groups = equal_files + list(group_of.values())
    return [[audio[at] for at in group] for group in groups]
