"""Headers of audio files, read when a data set is opened: durations, rates and broken files."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from atr_moco_plugin.data.audio.decode import Decoder, read_header
from atr_moco_plugin.data.audio.read import MIN_SECONDS, too_short
from atr_moco_plugin.data.audio.source import FileSource, Segment
from atr_moco_plugin.data.opening.joining import LocatedRecording
from atr_moco_plugin.errors import InputError

_FILES_A_JOB = 64


class Header(NamedTuple):
    """What the header of an audio file says.

    Attributes:
        seconds: the duration, ``nan`` where there is a problem.
        rate: the sampling rate in Hz, 0 where there is a problem.
        problem: why the file cannot be decoded, or empty.
    """

    seconds: float
    rate: int
    problem: str


def clip_headers(clips: Sequence[LocatedRecording], decoder: Decoder) -> Iterator[Header]:
    """The header of every clip, with the duration of its part of the file. Every file is read once.

    Sets the :attr:`~.joining.LocatedAudio.part` of each clip to its first sample and one after the
    last.

    Raises:
        InputError: if a segment is not in its file.
    """
    # Of a million files with one clip each, no header is kept.
    several = {path for path, number in Counter(c.path for c in clips).items() if number > 1}
    kept: dict[str, Header] = {}
    headers = read_headers(list(dict.fromkeys(clip.path for clip in clips)), decoder)
    for clip in clips:
        header = kept.get(clip.path) or next(headers)
        if clip.path in several:
            kept[clip.path] = header
        yield header if header.problem else _of_part(clip, header)


def read_headers(paths: Sequence[FileSource], decoder: Decoder = "soundfile") -> Iterator[Header]:
    """Read the headers of audio files, several at a time, and see whether the files are complete.

    Args:
        paths: the files.
        decoder: what reads them.

    Yields:
        The header of each file, in order.
    """
    jobs = [paths[start : start + _FILES_A_JOB] for start in range(0, len(paths), _FILES_A_JOB)]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        for headers in pool.map(lambda job: [_read_header(path, decoder) for path in job], jobs):
            yield from headers


def _read_header(path: FileSource, decoder: Decoder) -> Header:
    try:
        return _checked(*read_header(path, decoder))
    except (InputError, OSError) as error:
        return Header(math.nan, 0, str(error).removeprefix(f"{path}: ").split("; ")[0])


def _of_part(clip: LocatedRecording, header: Header) -> Header:
    total = round(header.seconds * header.rate)
    if not isinstance(clip.source, Segment):
        clip.part = (0, total)
        return header
    try:
        first, last = clip.source.frames(total, header.rate)
    except InputError as error:
        raise InputError(f"{clip.recording.where}: {error}") from None
    clip.part = (first, last)
    return _checked(last - first, header.rate)


def _checked(frames: int, rate: int) -> Header:
    if too_short(frames, rate):
        return Header(math.nan, 0, f"lasts {frames / rate:.3f} s, less than {MIN_SECONDS} s")
    return Header(frames / rate, rate, "")
