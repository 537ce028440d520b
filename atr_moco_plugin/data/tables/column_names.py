"""Names of columns that captions files have, as :func:`column_name` makes them: one table for all
data sets.

Where several names of one meaning are listed, the first that a table has counts, or that a row
fills.
"""

from __future__ import annotations

import re

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

_CAPITAL_WITHIN = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def column_name(name: object) -> str:
    """A column's name as it is looked up: in lower case, and ``startTime`` as ``start_time``."""
    return _CAPITAL_WITHIN.sub("_", str(name).strip()).lower()
