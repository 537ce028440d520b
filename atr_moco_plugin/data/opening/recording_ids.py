"""Where a clip comes from, by the names that data sets give clips and files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from atr_moco_plugin.data.audio.source import FileSlice, Segment
from atr_moco_plugin.data.clips import Clip

# Y<id>, <id> and <id>_<start> of AudioSet, AudioCaps and VGGSound, in seconds or milliseconds.
_VIDEO = re.compile(
    r"Y?(?P<id>[\w-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.ASCII
)
_SOUNDS = (
    re.compile(r"\d-(?P<id>\d+)-[A-Z]-\d+"),  # ESC-50: fold, sound, take, class
    re.compile(r"(?P<id>\d+)-\d-\d+-\d+"),  # UrbanSound8K: sound, class, occurrence, slice
    re.compile(r"(?P<id>\d+)__.+"),  # as Freesound calls a download: sound, user, title
    re.compile(r"(?i:freesound)[-_ ]?(?P<id>\d+)"),
)
_NUMBER = re.compile(r"(?P<id>\d{4,7})")  # FSD50K and WavCaps; other sites have numbers as well


@dataclass(frozen=True)
class RecordingId:
    """What a recording is called where it comes from.

    Attributes:
        site: ``YouTube`` or ``Freesound``.
        number: its id there.
        start: of the clip in the video, in seconds or milliseconds; None if the name says nothing.
        certain: whether names of this form come from that site alone.
    """

    site: str
    number: str
    start: float | None = None
    certain: bool = True

    def may_be(self, other: RecordingId) -> bool:
        """Whether two ids of one recording name no two places in it."""
        if self.start is None or other.start is None:
            return True
        return self.start in (other.start, 1000 * other.start) or other.start == 1000 * self.start

    def __str__(self) -> str:
        if self.site == "YouTube":
            return f"the video {self.number} on YouTube"
        return f"the sound {self.number or 0} on Freesound" + (
            "" if self.certain else ", if it is one,"
        )


def recording_ids(clip: Clip) -> list[RecordingId]:
    """The ids in the key of a clip and in the name of its file, each once."""
    found: dict[tuple[str, str], RecordingId] = {}
    for name in names_of(clip):
        for one in _ids_in(name):
            found.setdefault((one.site, one.number), one)
    return list(found.values())


def names_of(clip: Clip) -> Iterator[str]:
    """The key of a clip and the name of its file without folders, each with its suffix and without
    it."""
    source = clip.source
    if isinstance(source, Segment):
        source = source.path
    names = [clip.key] if isinstance(source, FileSlice) else [clip.key, source]
    for name in names:
        if isinstance(name, str | os.PathLike):
            base = re.split(r"[/\\]", os.fspath(name))[-1]
            yield base
            yield os.path.splitext(base)[0]


def _ids_in(name: str) -> Iterator[RecordingId]:
    for form in _SOUNDS:
        if match := form.fullmatch(name):
            yield RecordingId("Freesound", match["id"].lstrip("0"))
            return
    if match := _NUMBER.fullmatch(name):
        yield RecordingId("Freesound", match["id"].lstrip("0"), certain=False)
    elif (match := _VIDEO.fullmatch(name)) and not match["id"].isdigit():
        yield RecordingId("YouTube", match["id"], float(match["start"]) if match["start"] else None)
