"""Whether an audio file goes as far as its header says, and no further."""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

import soundfile

from atr_moco_plugin.data.audio.source import Source, open_source, unusable
from atr_moco_plugin.errors import InputError

TOLERANCE = 0.1
"""Seconds that a file with its length in its header may be shorter than that says."""

# libsndfile corrects a header by the file's size and says so in its log: the bytes of samples in
# WAV, AIFF and AU, and those of the file in W64 and RF64.
_CORRECTED = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)

_UNKNOWN_FRAMES = 2**50  # libsndfile's "unknown" is about 2**63, and it cannot seek there

# A program that writes to a pipe cannot know the length and puts about 2 or 4 GiB there.
_UNKNOWN_BYTES = 2**31 - 2**16

_SIZES = re.compile(r"^Length : (\d+)$.*^data : (\d+)$", re.MULTILINE | re.DOTALL)
"""In libsndfile's log: the bytes of a WAV and those of its samples."""

_TAGS: tuple[bytes, ...] = (b"LIST", b"id3 ", b"bext", b"iXML", b"_PMX", b"cue ", b"smpl", b"fact")
_TAGS += (b"ID3", b"APETAGEX", b"LYRICSBEGIN")
"""How tags begin that programs put behind the samples, the last three outside of any chunk."""

_FILLING = 2**24
"""Most bytes of one value behind the last chunk that fill up a disk's block and are no samples."""

_REST = 2**15
"""Bytes behind the last chunk that are what a program left, such as half a tag, and no samples."""


def check_complete(file: soundfile.SoundFile, source: Source) -> None:
    """Refuse a WAV, AIFF, AU, W64, RF64, FLAC or MP3 file that ends before its header says, and a
    WAV that goes on behind it, without decoding all of it.

    What does not say how long it is, such as Ogg and an MP3 without a Xing, Info or VBRI header,
    counts as far as it goes.

    Raises:
        InputError: if more than :data:`TOLERANCE` is missing or too much, or a FLAC header gives no
            length.
    """
    if file.frames > _UNKNOWN_FRAMES:
        raise InputError(
            f"{source}: its header gives no length, which soundfile needs; convert it again, not "
            "through a pipe, or use decoder 'torchcodec'"
        )
    seconds = file.frames / file.samplerate
    if file.format in ("FLAC", "MP3"):
        # A truncated file lacks its end, so one sample from there decides.
        last = max(0, file.frames - 1 - int(TOLERANCE * file.samplerate))
        try:
            file.seek(last)
            complete = len(file.read(1)) == min(1, file.frames)
        except soundfile.SoundFileError:
            complete = False
        if not complete and (file.format == "FLAC" or _mp3_states_length(source)):
            raise unusable(source, f"is truncated, its header says {seconds:.3f} s")
    log = file.extra_info
    found = _CORRECTED.search(log)
    if found is None and file.format in ("WAV", "WAVEX") and file.frames:
        _check_end(source, log, seconds)
    if found is None or int(found[1]) >= _UNKNOWN_BYTES or not file.frames:
        return
    ratio = int(found[1]) / int(found[2])
    if (ratio - 1) * seconds > TOLERANCE:
        raise unusable(
            source, f"is truncated, {seconds:.3f} s of {ratio * seconds:.3f} s are there"
        )


def _check_end(source: Source, log: str, seconds: float) -> None:
    """Refuse a WAV with samples behind those that its header counts in 32 bits, as one of more than
    4 GiB and one whose program did not come to its end have."""
    sizes = _SIZES.search(log)
    if sizes and (int(sizes[1]) - int(sizes[2])) * seconds <= TOLERANCE * int(sizes[2]):
        return  # as almost all files do
    place = open_source(source)
    with open(place, "rb") if isinstance(place, str) else place as file:
        data, rest = _behind_chunks(file)
    there = seconds * (1 + rest / data) if data else seconds
    if there - seconds > TOLERANCE and rest > _REST:
        raise InputError(
            f"{source}: its header says {seconds:,.1f} s and the file has bytes for {there:,.1f} "
            "s: repair the header, or save it as RF64 or FLAC"
        )


def _behind_chunks(file: BinaryIO) -> tuple[int, int]:
    """The bytes of a WAV's samples by its header, 0 where there are none, and those behind its last
    chunk."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    order = {b"RIFF": "<", b"RIFX": ">"}.get(file.read(4))
    if order is None:
        return 0, 0
    at, data = 12, 0
    while at + 8 <= end:
        file.seek(at)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if not _is_name(name) or at + 8 + size > end:
            file.seek(at)
            is_tag = file.read(11).startswith(_TAGS)
            is_filling = end - at <= _FILLING and _is_filled(file, at)
            return data, 0 if is_tag or is_filling else end - at
        if name == b"data" and not data:
            data = size
            if not size:  # unknown
                break
        at += 8 + size
        if size % 2:  # not every program pads
            file.seek(at)
            at += not _is_name(file.read(4))
    return data, 0


def _is_name(name: bytes) -> bool:
    return all(32 <= byte < 127 for byte in name)


def _is_filled(file: BinaryIO, at: int) -> bool:
    """Whether a file has one byte again and again from a place on."""
    file.seek(at)
    first = file.read(1)
    return all(chunk == first * len(chunk) for chunk in iter(lambda: file.read(2**20), b""))


def _mp3_states_length(source: Source) -> bool:
    """Whether the first frame of an MP3 holds the number of frames, as that of Xing, LAME and the
    Fraunhofer encoder does; without it a decoder estimates the length from the file's size."""
    place = open_source(source)
    with open(place, "rb") if isinstance(place, str) else place as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3" and len(head) == 10:  # four times seven bits
            tag = 10 + sum(byte << 7 * (3 - k) for k, byte in enumerate(head[6:]))
        file.seek(tag)
        head = file.read(64)
    return any(name in head for name in (b"Xing", b"Info", b"VBRI"))
