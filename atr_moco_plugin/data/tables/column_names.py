"""Names of columns that captions files have, as :func:`column_name` makes them: one table for all
data sets.

Where several names of one meaning are listed, the first that a table has counts, or that a row
fills.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

AUDIO = ("file_name", "fname", "filename", "audio", "wav", "path", "audio_path")
"""The audio file."""

CAPTIONS = ("caption", "captions", "text", "raw_text", "full_text")
"""Captions; a number may follow each name, see :func:`~.columns.caption_columns`."""

VIDEO = "youtube_id"
"""The id of a video on YouTube, 11 characters."""

CLIP_ID = "clip_id"
"""The clip: rows with one value are one clip, whatever their files are called."""

IDS = ("id", "key")
"""A name of the row, which becomes the clip's key where it is unique."""

SPLITS = ("split", "subset")
"""The split of a row."""

COLLECTIONS = ("source", "dataset")
"""The collection that a recording comes from, within which its id is unique."""

STARTS = ("start", "start_time", "start_seconds", "start_sec", "start_s", "begin", "onset")
"""The start of a part of a file, in seconds."""

ENDS = ("end", "end_time", "end_seconds", "end_sec", "end_s", "stop")
"""The end of a part of a file, in seconds."""

DURATIONS = ("duration", "duration_seconds", "duration_sec", "duration_s")
"""The length of a part of a file, in seconds, where a start is beside it."""

VIDEO_STARTS = ("start_time", "start", "start_seconds", "start_sec", "onset", "offset")
"""The start of a clip in its video, which is no place in its file: that is the cut already."""

FURTHER = ("audiocap_id", "category", "src_file")
"""Other names by which the first line of a table is recognised."""

LABELS = ("label", "class", "class_name", "category")
"""The name of a clip's class, which a folder without captions takes in their place."""

RECORDINGS = ("recording", "recording_id", "src_file")
"""The recording that a clip is a part of: clips of one are in one split."""

USED = frozenset(
    (
        *AUDIO,
        *CAPTIONS,
        VIDEO,
        CLIP_ID,
        *IDS,
        *SPLITS,
        *COLLECTIONS,
        *STARTS,
        *ENDS,
        *DURATIONS,
        *VIDEO_STARTS,
        *FURTHER,
        *LABELS,
        *RECORDINGS,
    )
)
"""All of these names."""

_PLACES = {*STARTS, *ENDS, *DURATIONS}
# Without one of them nothing is refused: a clip would be another one without a word.
_IN_CAMEL_CASE = {
    name.replace("_", ""): name
    for name in (VIDEO, CLIP_ID, *_PLACES, "audiocap_id", *RECORDINGS)
    if "_" in name
}
_CAPITAL_WITHIN = re.compile(r"[a-z0-9][A-Z]")


@lru_cache(maxsize=1024)
def column_name(name: str) -> str:
    """A column's name as it is looked up: in lower case, and ``startTime`` as ``start_time``.

    Names of places, clips, videos and recordings are known in camel case, and no others."""
    lower = name.strip().lower()
    if lower in USED or not _CAPITAL_WITHIN.search(name):
        return lower
    return _IN_CAMEL_CASE.get(lower.replace("_", ""), lower)


@lru_cache(maxsize=1024)
def column_names_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The :func:`column_name` of each; a name in camel case beside the one that it stands for is no
    second one, and stays as it is."""
    lower = [name.strip().lower() for name in names]
    found = map(column_name, names)
    return tuple(y if x != y and x in lower else x for x, y in zip(found, lower, strict=True))


def names_in_row(names: Sequence[str], values: Iterable[object]) -> list[str]:
    """The :func:`column_names_of` a row: ``startTime`` that holds no number of seconds, such as a
    date, is no ``start_time``."""
    found = zip(names, column_names_of(tuple(names)), values, strict=False)
    return [name.strip().lower() if _no_place(x, name, y) else x for name, x, y in found]


def _no_place(column: str, name: str, value: object) -> bool:
    is_place = column in _PLACES and column != name.strip().lower()
    return is_place and not _is_number(value)


def _is_number(value: object) -> bool:
    """Whether a cell has a number, or nothing."""
    text = "" if value is None else str(value).strip()
    try:
        return not text or math.isfinite(float(text))
    except ValueError:
        return False
