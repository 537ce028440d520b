"""Clips: one recording each, and a million of them in little memory."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from atr_moco_plugin.data.audio.source import Segment
from atr_moco_plugin.ids import caption_group_id, caption_id, clip_id

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what is said of it.

    Attributes:
        key: unique in its data set; the recording, not the caption row.
        captions: one text or more.
        source: where the audio comes from: a path, or whatever the data set's ``read`` takes.
        label: the class, for data sets that have classes.
        caption_group: when given, all captions are wordings of one description and share one
            caption id with every other clip of the group (e.g. an ESC-50 class).
        seconds: how long it lasts, where that is known without decoding it. It says nothing of
            which clip it is: equal clips may differ in it.
    """

    key: str
    captions: tuple[str, ...]
    source: Any
    label: str | None = None
    caption_group: str | None = None
    seconds: float | None = field(default=None, compare=False)

    @property
    def caption_ids(self) -> tuple[int, ...]:
        """The id of each caption: of its text, or of the group where there is one."""
        if self.caption_group is not None:
            return (caption_group_id(self.caption_group),) * len(self.captions)
        return tuple(caption_id(text) for text in self.captions)

    def clip_id(self, dataset: str) -> int:
        """The clip's id in the data set of that name."""
        return clip_id(dataset, self.key)


class ClipTable(Sequence[Clip]):
    """Clips as the rows of one buffer; a clip is made anew each time it is asked for.

    Of a million clips as Python objects each forked worker would soon have a copy of its own:
    looking at an object changes its reference count, and with that its page of memory. A buffer
    stays shared.

    Args:
        clips: the first rows.
    """

    def __init__(self, clips: Iterable[Clip] = ()) -> None:
        self._rows = bytearray()
        self._starts = array("Q", [0])
        self._sources: dict[int, Any] = {}  # neither a path as a string nor a segment
        for clip in clips:
            self.append(clip)

    def append(self, clip: Clip) -> None:
        """Add a clip behind the last."""
        source = clip.source
        if type(source) is Segment:
            source = [source.path, source.start, source.end]
        elif type(source) is not str:
            self._sources[len(self)] = source
            source = None
        seconds = None if clip.seconds is None else round(clip.seconds, 3)
        row = _to_json([clip.key, clip.captions, source, clip.label, clip.caption_group, seconds])
        # Names of files that are not valid text have half surrogate pairs in them.
        self._rows += row.encode("utf-8", "surrogatepass")
        self._starts.append(len(self._rows))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        row = self._rows[self._starts[at] : self._starts[at + 1]].decode("utf-8", "surrogatepass")
        key, captions, source, *rest = json.loads(row)
        if source is None:
            source = self._sources.get(at)
        elif type(source) is list:
            source = Segment(*source)
        return Clip(key, tuple(captions), source, *rest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented
        return all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"ClipTable of {len(self):,} clips"


def content_digest(
    name: str, splits: Mapping[str, Sequence[Clip]], made_of: Callable[[Clip], str] | None = None
) -> str:
    """Hexadecimal digest of all that the clips of a data set say of themselves but their paths.

    Args:
        name: the data set's.
        splits: split name to clips.
        made_of: more that belongs to a clip's content; ``None`` adds nothing.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(["atr-moco-plugin/1", name]).encode())
    for split, clips in splits.items():
        digest.update(json.dumps([split, len(clips)]).encode())
        for clip in clips:
            row: list[object] = [clip.key, clip.captions, clip.label, clip.caption_group]
            if isinstance(clip.source, Segment):  # a clip_id may have another part by now
                row.append((clip.source.start, clip.source.end))
            if made_of is not None:
                row.append(made_of(clip))
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()
